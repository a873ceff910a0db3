"""`load`: a model from its reference, whatever wrote it. What cannot be loaded exactly is refused."""

import json
import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from mirada.backbones import SIZES, build, require_colour
from mirada.checkpoints import table
from mirada.checkpoints.published import local_folder, open_published, published_family
from mirada.checkpoints.weights import open_weights
from mirada.device import choose_device, without_values
from mirada.errors import MiradaError
from mirada.language import call
from mirada.model import MODEL_FORMAT, Design, Model
from mirada.preprocess import Preprocess
from mirada.shipped import shipped_folder

__all__ = ["known_names", "load", "untrained"]

OWN_TABLE: table.Table = []  # our names are our names


def load(
    ref: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None, device: str = "cpu",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Model:  # fmt: skip
    """A model from its reference.

    Args:
        ref: a folder that Mirada saved (a run's folder too); `mirada:emoji`, which comes with the package; a size name
            such as `vit-s/16` (random weights); a folder that transformers, timm or open_clip saved; or a published
            name: `timm:NAME`, `hf:ORG/NAME`, `open_clip:NAME[/TAG]`, `openai:NAME`, `dino:NAME`, `mae:NAME`,
            `vissl:NAME`, `torchvision:NAME`.
        weights: a file of the reference's own layout to read instead of what is published: safetensors, or a state
            dictionary of PyTorch's, of which only tensors are read. Nothing is ever unpickled into objects.
        device: cpu, cuda or mps.
        on_progress: called with what is being downloaded, bytes done, and bytes in all.

    Raises:
        MiradaError: no such reference (the nearest is named), a damaged folder or file, one that cannot be had, or
            tensors that do not fill the model one for one.
    """
    where = choose_device(device)
    folder = shipped_folder(os.fspath(ref)) or Path(ref)
    if os.path.isdir(folder):  # which says no of names that are too long
        model = _load_folder(folder, weights)
    elif published_family(os.fspath(ref)):
        model = open_published(os.fspath(ref), weights, on_progress)
    else:
        model = untrained(os.fspath(ref))
        if weights is not None:
            _fill(model, Path(weights))
    return model.to(where).eval()


def _load_folder(folder: Path, weights: str | os.PathLike[str] | None) -> Model:
    for inner in (folder, folder / "model"):
        if (inner / "config.json").is_file() and _is_ours(inner / "config.json"):
            if weights is not None:
                raise MiradaError(f"{inner} has weights of its own: leave `weights` out, or give a size name.")
            return _load_own(inner)
    return local_folder(folder, weights)


def _is_ours(config: Path) -> bool:
    """Whether the file is not somebody else's config: what cannot be read at all counts as ours, damaged."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(values, dict) or "format" in values or not {"model_type", "architecture"} & values.keys()


def _load_own(folder: Path) -> Model:
    vocabulary = folder / "tokenizer.json"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["format"] > MODEL_FORMAT:
            raise MiradaError(
                f"{folder} was written by a newer Mirada (format {config['format']}, this one reads up to "
                f"{MODEL_FORMAT}): upgrade Mirada."
            )
        design = Design.from_dict(config)
        words = vocabulary.read_text(encoding="utf-8") if vocabulary.is_file() else None
        with without_values():
            model = Model.from_design(design, words)
    except MiradaError:
        raise
    except (OSError, AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise MiradaError(f"{folder / 'config.json'} is not a Mirada model's ({error!r}): was it edited?") from error
    _fill(model, folder / "model.safetensors")
    return model


def untrained(reference: str) -> Model:
    """A size name with random weights and the usual preprocessing."""
    if call(reference)[0].partition("/")[0] not in SIZES:
        _refuse_path(reference)
    backbone = build(reference)  # names the nearest size if there is none of that name
    require_colour(reference)
    side = call(reference)[1].get("image_size", 224)
    return Model(reference, backbone, Preprocess(size=(side, side), resize="crop"))


def _refuse_path(reference: str) -> None:
    """Raise `MiradaError` for what looks like a path, and name the folder most like it."""
    path = Path(reference)
    if os.path.exists(path):  # which says no of names that are too long
        raise MiradaError(f"{reference!r} is a file: give the folder that it is in, or a size name such as 'vit-s/16'.")
    nearest = get_close_matches(path.name, _folders(path.parent), 1)
    inside = path.parent != Path() and os.path.isdir(path.parent)
    if nearest or inside or path.is_absolute() or ":" in reference or reference.count("/") > 1:
        hint = f"did you mean {str(path.parent / nearest[0])!r}?" if nearest else "check the path."
        raise MiradaError(f"There is no model {reference!r}, neither a folder nor a size of that name: {hint}")


def _folders(parent: Path) -> list[str]:
    try:
        return [entry.name for entry in parent.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _fill(model: Model, file: Path) -> None:
    """Put the file's tensors into the model, one for one."""
    weights = open_weights(file)
    rows = [(name, name) for name in model.state_dict()]
    what = f"The weights {file} do not fit {model.architecture!r}"
    fill(model, table.read(rows, weights.shapes, weights.get, shapes_of(model), what))


def shapes_of(model: Model) -> dict[str, torch.Size]:
    """What the model's tensors are called, and how they are shaped."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def fill(model: Model, tensors: dict[str, Tensor]) -> None:
    """Make these, without copying them, the model's."""
    model.load_state_dict(tensors, assign=True)


def known_names() -> list[str]:
    """Every size name with the patch its paper uses."""
    return [name if size.patch is None else f"{name}/{size.patch}" for name, size in SIZES.items()]
