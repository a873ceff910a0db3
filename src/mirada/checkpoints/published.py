"""Published checkpoints by name, and folders that other libraries saved: find the files, plan, fill, or refuse."""

import os
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mirada.checkpoints import table
from mirada.checkpoints.files import Files, LocalFiles
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.weights import Weights, find_weights, open_weights
from mirada.device import without_values
from mirada.errors import MiradaError
from mirada.model import Model

__all__ = ["FAMILIES", "describe_published", "local_folder", "open_published", "published_family"]

Progress = Callable[[str, int, int], None]

_OTHERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
FIRST = {  # of two layouts in one place
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"), "hf": _OTHERS, "timm": _OTHERS,
}  # fmt: skip
FAMILIES = ("timm", "hf", "open_clip", "openai", "dino", "mae", "vissl", "torchvision")
TELLTALES = {  # a tensor that only this layout has -> how its files are referred to
    "visual.trunk.": "open_clip:", "visual.transformer.resblocks.": "open_clip: or openai:",
    "vision_model.": "hf:", "embeddings.": "hf:", "vit.": "hf:", "dinov2.": "hf:", "deit.": "hf:", "regnet.": "hf:",
    "resnet.": "hf:", "encoder.layers.encoder_layer_": "torchvision:", "trunk_output.": "torchvision:",
    "_feature_blocks.": "vissl:", "decoder_blocks.": "mae:", "storage_tokens": "dino:", "register_tokens": "dino:",
    "blocks.": "timm:, dino: or mae:", "layer1.": "timm: or torchvision:", "s1.": "timm:", "stages.": "timm:",
    "backbone.": "one of Mirada's own folders, or its size name",
}  # fmt: skip


def published_family(ref: str) -> str | None:
    """The part before the colon of `timm:NAME` and so on; None for what is no published name.

    Raises `MiradaError` for a word before a colon that is nearly a family.
    """
    family, colon, name = ref.partition(":")
    if not colon or "/" in family or not name:
        return None
    if family in FAMILIES:
        return family
    if nearest := get_close_matches(family.lower().replace("-", "_"), FAMILIES, 1):
        raise MiradaError(f"There is no family {family!r} of checkpoints: did you mean {nearest[0]}:{name}?")
    return None


def family_module(family: str) -> ModuleType:
    """Imported when it is needed: a family costs its tables."""
    return import_module(f"mirada.checkpoints.{family}")


def open_published(ref: str, file: str | os.PathLike[str] | None, on_progress: Progress | None = None) -> Model:
    """The model of `family:name`, from the hub or from a file of that family's own layout."""
    family, _, name = ref.partition(":")
    module = family_module(family)
    if file is not None:
        weights = open_weights(Path(file))
        return assemble(module.plan(name, _config_of(family, name, on_progress), weights.shapes), weights, ref)
    from mirada.checkpoints.hub import HubFiles

    files = HubFiles(module.repository(name), on_progress=on_progress)
    layout = layout_of(files, family)
    weights = find_weights(files, FIRST.get(layout, ()))
    plan: Plan = family_module(layout).plan(name, files, weights.shapes)
    return assemble(plan, weights, ref)


def describe_published(ref: str, on_progress: Progress | None = None) -> tuple[Plan | None, dict[str, Any]]:
    """What is known of a published model before its weights are fetched: its plan, if the beginning of its file says
    what tensors it has, and repository, checkpoint, licence, gated, bytes, cached; None where nobody says."""
    from mirada.checkpoints.hub import HubFiles

    family, _, name = ref.partition(":")
    files = HubFiles(family_module(family).repository(name), on_progress=on_progress)
    try:
        layout: str | None = layout_of(files, family)
    except MiradaError:
        layout = None  # of a gated one the page is open and the files are not
    facts = files.facts(FIRST.get(layout or family, ()))
    known = {"repository": facts.repository, "checkpoint": facts.checkpoint, "licence": facts.licence,
             "gated": facts.gated, "bytes": facts.size, "cached": facts.cached}  # fmt: skip
    if layout is None and not facts.gated:
        layout_of(files, family)
    shapes = None if layout is None or facts.checkpoint is None else files.shapes(facts.checkpoint)
    if layout is None or shapes is None:
        return None, known
    plan: Plan = family_module(layout).plan(name, files, shapes)
    return plan, known


def local_folder(folder: Path, file: str | os.PathLike[str] | None = None) -> Model:
    """The model of a folder that transformers, timm or open_clip saved; `file` says which weights if there are two."""
    files = LocalFiles(folder)
    weights = open_weights(Path(file)) if file is not None else None
    if files.json("adapter_config.json") is not None and weights is None:
        find_weights(files)  # says whose adapter it is
    layout = layout_of(files, "")
    weights = weights or find_weights(files, FIRST.get(layout, ()))
    plan: Plan = family_module(layout).plan(folder.name, files, weights.shapes)
    return assemble(plan, weights, os.fspath(folder))


def layout_of(files: Files, family: str) -> str:
    """Which family's layout a folder or repository has, told by its configs; many of the hub hold two."""
    if family == "torchvision":  # its weights are among timm's, and their pixels are still torchvision's
        return family
    config = files.json("config.json") or {}
    if family == "timm" and isinstance(config.get("architecture"), str):
        return family
    if family != "hf" and files.json("open_clip_config.json") is not None:
        return "open_clip"
    if "model_type" in config:
        return "hf"
    if isinstance(config.get("architecture"), str):
        return "timm"
    if files.json("open_clip_config.json") is not None:
        return "open_clip"
    raise MiradaError(
        f"{files.where} has no config.json of Mirada, transformers, timm or open_clip: give a model's folder, a run's "
        "folder once it has finished, or a name such as timm:vit_base_patch16_224 with weights=FILE."
    )


def assemble(plan: Plan, weights: Weights, ref: str) -> Model:
    """Design and tensors to a model. It is built without memory and given the file's tensors themselves."""
    with without_values():
        model = Model.from_design(plan.design, plan.vocabulary)
    model.provenance |= {"source": ref}
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    try:
        tensors = table.read(
            plan.table, weights.shapes, weights.get, wanted, f"The weights {weights.where} do not fit {ref}"
        )
    except MiradaError as error:
        hint = _hint(weights, ref)
        raise MiradaError(f"{error} {hint}" if hint else str(error)) from None
    model.load_state_dict(tensors, assign=True)
    return model


def _config_of(family: str, name: str, on_progress: Progress | None) -> Files | None:
    """With weights from a file, transformers' configs alone come from the hub: its names say nothing of a model."""
    if family != "hf":
        return None
    from mirada.checkpoints.hub import HubFiles

    return HubFiles(name, on_progress=on_progress)


def _hint(weights: Weights, ref: str) -> str:
    """Whose layout the file's names look like, if not that of the reference."""
    for start, whose in TELLTALES.items():
        if any(name.startswith(start) for name in weights.shapes):
            family = ref.partition(":")[0]
            return "" if f"{family}:" in whose else f"Its names look like those of {whose}."
    return ""
