"""A `Model`: backbone, optional head, and what it expects of its pixels. `load` finds one, `save` keeps one."""

import json
import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from mirada.backbones import SIZES, build
from mirada.data.dataset import why
from mirada.data.decode import UndecodableImage, decode
from mirada.device import choose_device
from mirada.errors import MiradaError
from mirada.features import Backbone
from mirada.language import call
from mirada.preprocess import Preprocess

__all__ = ["MODEL_FORMAT", "Model", "known_names", "load", "untrained"]

MODEL_FORMAT = 1

AT_ONCE = 64  # images that are decoded and encoded together

ImageInput = str | os.PathLike[str] | Image.Image
Images = Tensor | ImageInput | Sequence[ImageInput]


class Model(nn.Module):
    """What `load` returns.

    Attributes:
        backbone: any `mirada.features.Backbone`.
        preprocess: the pixels it expects.
        head: a linear classifier on the pooled feature, or None.
        classes: the names of the head's outputs, or None.
        mirror: whether `logits` averages over each image and its mirror image, as the model was measured.
        provenance: where it comes from: free-form, stored with it.
    """

    def __init__(
        self, architecture: str, backbone: Backbone, preprocess: Preprocess, *, head: nn.Linear | None = None,
        classes: list[str] | None = None, mirror: bool = False, provenance: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if (head is None) != (classes is None) or (classes is not None and head and head.out_features != len(classes)):
            raise MiradaError("A head needs one class name for each of its outputs, and class names need a head.")
        self.architecture, self.backbone, self.preprocess = architecture, backbone, preprocess
        self.head, self.classes, self.mirror, self.provenance = head, classes, mirror, provenance or {}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.no_grad()
    def encode_image(self, x: Images, normalize: bool = False) -> Tensor:
        """The image feature, float32 (B, D), of paths, PIL images, or a ready tensor (B, 3, H, W).

        `normalize` scales each row to length 1. Gradients and training mode are left alone: call `backbone` to train.
        """
        feature = self._evaluating(lambda images: self.backbone(images).pooled.float(), x)
        return feature / feature.norm(dim=-1, keepdim=True).clamp(min=1e-12) if normalize else feature

    @torch.no_grad()
    def logits(self, x: Images) -> Tensor:
        """Class scores before the softmax, float32 (B, C). Raises `MiradaError` for a model without a head."""
        head = self.head
        if head is None:
            raise MiradaError(
                f"The model {self.architecture!r} has no classification head: train one with `mirada train`, "
                "or use encode_image."
            )

        def classify(images: Tensor) -> Tensor:
            logits: Tensor = head(self.backbone(images).pooled).float()
            if self.mirror:
                mirrored: Tensor = head(self.backbone(images.flip(-1)).pooled).float()
                logits = (logits + mirrored) / 2
            return logits

        return self._evaluating(classify, x)

    def encode_text(self, texts: Sequence[str], normalize: bool = False) -> Tensor:
        """The text feature, float32 (B, D). Raises `MiradaError`: this model has no text tower."""
        del texts, normalize
        raise MiradaError(f"The model {self.architecture!r} has no text tower: it sees images only.")

    def prepare(self, x: Images) -> Tensor:
        """Float32 (B, 3, H, W) on the model's device, preprocessed unless `x` is a tensor already."""
        if isinstance(x, Tensor):
            if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
                raise MiradaError(
                    f"A tensor of images is (B, 3, height, width), floating point and preprocessed, and this one is "
                    f"{tuple(x.shape)}, {str(x.dtype).removeprefix('torch.')}: give paths or PIL images instead."
                )
            return x.to(self.device, next(self.parameters()).dtype)
        images = [x] if isinstance(x, (str, os.PathLike, Image.Image)) else list(x)
        if not images:
            raise MiradaError("There are no images: give at least one path or picture.")
        return torch.stack([self.preprocess(_open(image)) for image in images]).to(self.device)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `model.safetensors` and `config.json`, each whole or not at all; returns the folder."""
        from mirada.train.checkpoint import save_atomically

        target = Path(folder)
        config = {
            "format": MODEL_FORMAT,
            "architecture": {"name": self.architecture},
            "preprocess": self.preprocess.to_dict(),
            "classes": self.classes,
            "mirror": self.mirror,
            "provenance": self.provenance,
        }
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        temporary = target / ".config.json.part"
        try:
            target.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            save_atomically(target / "model.safetensors", tensors, {"format": "pt"})
            os.replace(temporary, target / "config.json")
        except OSError as error:
            raise MiradaError(f"Cannot save the model in {target} ({why(error)}): choose another folder.") from error
        finally:
            if temporary.is_file():
                temporary.unlink()
        return target

    def _evaluating(self, function: Callable[[Tensor], Tensor], x: Images) -> Tensor:
        was_training = self.training
        self.eval()
        try:
            if isinstance(x, Sequence) and not isinstance(x, str) and len(x) > AT_ONCE:
                parts = [x[start : start + AT_ONCE] for start in range(0, len(x), AT_ONCE)]
                return torch.cat([function(self.prepare(part)) for part in parts])
            result = function(self.prepare(x))
        finally:
            self.train(was_training)
        return result


def load(ref: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None, device: str = "cpu") -> Model:
    """A model from its reference: a folder that Mirada saved (a run folder too), or a size name such as `vit-s/16`.

    A size name gives random weights, or those of `weights`, a `model.safetensors` of the same architecture; every
    tensor must fit. Nothing is ever unpickled.

    Raises:
        MiradaError: no such reference (the nearest is named), a damaged folder, or weights that do not fit exactly.
    """
    where, folder = choose_device(device), Path(ref)
    if folder.is_dir():
        if weights is not None:
            raise MiradaError(f"{folder} has weights of its own: leave `weights` out, or give a size name.")
        model = _load_folder(folder)
    else:
        model = untrained(os.fspath(ref))
        if weights is not None:
            _fill(model, Path(weights))
    return model.to(where).eval()


def _load_folder(folder: Path) -> Model:
    for inner in (folder, folder / "model"):
        if (inner / "config.json").is_file():
            folder = inner
            break
    else:
        raise MiradaError(
            f"{folder} has no config.json: give a model's folder, or a run's folder once it has finished."
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["format"] > MODEL_FORMAT:
            raise MiradaError(
                f"{folder} was written by a newer Mirada (format {config['format']}, this one reads up to "
                f"{MODEL_FORMAT}): upgrade with `pip install --upgrade mirada`."
            )
        name, classes = str(config["architecture"]["name"]), config["classes"]
        if classes is not None and not all(isinstance(entry, str) for entry in classes):
            raise TypeError("its classes are not names")
        preprocess = Preprocess.from_dict(config["preprocess"])
        mirror, provenance = config["mirror"], config["provenance"]
    except MiradaError:
        raise
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise MiradaError(f"{folder / 'config.json'} is not a Mirada model's ({error!r}): was it edited?") from error
    backbone = build(name)
    head = None if classes is None else nn.Linear(backbone.dim, len(classes))
    model = Model(name, backbone, preprocess, head=head, classes=classes, mirror=mirror, provenance=provenance)
    _fill(model, folder / "model.safetensors")
    return model


def untrained(reference: str) -> Model:
    """A size name with random weights and the usual preprocessing."""
    if call(reference)[0].partition("/")[0] not in SIZES:
        _refuse_path(reference)
    backbone = build(reference)  # names the nearest size if there is none of that name
    side = call(reference)[1].get("image_size", 224)
    return Model(reference, backbone, Preprocess(size=(side, side), resize="crop"))


def _refuse_path(reference: str) -> None:
    """Raise `MiradaError` for what looks like a path, and name the folder most like it."""
    path = Path(reference)
    if path.exists():
        raise MiradaError(f"{reference!r} is a file: give the folder that it is in, or a size name such as 'vit-s/16'.")
    nearest = get_close_matches(path.name, _folders(path.parent), 1)
    inside = path.parent != Path() and path.parent.is_dir()
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
    try:
        tensors = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise MiradaError(f"Cannot read the weights {file} ({error}): is the file whole?") from error
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    wrong = sorted(name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape)
    problems = [
        f"{what} {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise MiradaError(f"The weights {file} do not fit {model.architecture!r}: {'; '.join(problems)}.")
    model.load_state_dict(tensors)


def _open(image: ImageInput) -> Image.Image:
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    try:
        return decode(Path(image).read_bytes())
    except (OSError, UndecodableImage) as error:
        raise MiradaError(f"Cannot read {os.fspath(image)!r}: {why(error)}; is it an image?") from error


def known_names() -> list[str]:
    """Every size name with the patch its paper uses."""
    return [name if size.patch is None else f"{name}/{size.patch}" for name, size in SIZES.items()]
