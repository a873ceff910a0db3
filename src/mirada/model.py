"""A `Model`: a backbone, what it expects of its pixels, and, where there are, a head and a text tower.

Its `Design` is everything but the weights; a model is saved as both, side by side.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from mirada.backbones import build
from mirada.data.dataset import few, why
from mirada.data.decode import UndecodableImage, as_seen, decode
from mirada.device import without_values
from mirada.errors import MiradaError
from mirada.features import Backbone, Features
from mirada.modes import evaluating
from mirada.preprocess import Preprocess
from mirada.saving import save_atomically
from mirada.text import TextDesign, TextTower
from mirada.tokenizer import Tokenizer

__all__ = ["MODEL_FORMAT", "Design", "HeadInput", "Model", "Projection"]

MODEL_FORMAT = 2

AT_ONCE = 64  # images that are decoded and encoded together

ImageInput = str | os.PathLike[str] | Image.Image
Images = Tensor | ImageInput | Iterable[ImageInput]
HeadInput = Literal["pooled", "class and average", "class and distillation", "projected"]


class Projection(NamedTuple):
    """A linear layer from `Features.pooled` to the image feature: CLIP's projection, or the pooler of BERT's kind that
    some of Hugging Face's models have, which ends in a hyperbolic tangent."""

    dim: int
    bias: bool = False
    tanh: bool = False


@dataclass(frozen=True)
class Design:
    """All of a model but its weights.

    Attributes:
        architecture: the backbone, a name that `mirada.backbones.build` takes.
        preprocess: the pixels it expects.
        classes: the names of the head's outputs, or None for a model without a head.
        head_input: what the head reads: "pooled"; "class and average", the class token beside the mean patch (DINOv2's
            linear classifiers); "class and distillation", the first two tokens (DeiT, arXiv:2012.12877); or
            "projected", the image feature.
        projection: from the pooled feature to the image feature, or None where they are the same.
        text: the text tower, or None.
        mirror: whether `logits` averages over each image and its mirror image, as the model was measured.
        provenance: where it comes from: free-form, stored with it.
    """

    architecture: str
    preprocess: Preprocess
    classes: tuple[str, ...] | None = None
    head_input: HeadInput = "pooled"
    projection: Projection | None = None
    text: TextDesign | None = None
    mirror: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "architecture": {"name": self.architecture},
            "preprocess": self.preprocess.to_dict(),
            "classes": None if self.classes is None else list(self.classes),
            "head_input": self.head_input,
            "projection": None if self.projection is None else self.projection._asdict(),
            "text": None if self.text is None else self.text.to_dict(),
            "mirror": self.mirror,
            "provenance": self.provenance,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Design":
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError for what is no design."""
        name, classes, text = values["architecture"]["name"], values["classes"], values.get("text")
        if classes is not None and not all(isinstance(entry, str) for entry in classes):
            raise TypeError("its classes are not names")
        projection, head_input = values.get("projection"), values.get("head_input", "pooled")
        if head_input not in get_args(HeadInput):
            raise ValueError(f"there is no head input {head_input!r}")
        return cls(
            architecture=str(name), preprocess=Preprocess.from_dict(values["preprocess"]),
            classes=None if classes is None else tuple(classes), head_input=head_input,
            projection=None if projection is None else Projection(**projection),
            text=None if text is None else TextDesign.from_dict(text),
            mirror=values["mirror"], provenance=dict(values["provenance"]),
        )  # fmt: skip


class Model(nn.Module):
    """What `load` returns.

    Attributes:
        backbone: any `mirada.features.Backbone`.
        preprocess: the pixels it expects.
        projection: from the pooled feature to the image feature, or None where they are the same.
        head: a linear classifier, or None.
        classes: the names of the head's outputs, or None.
        text, tokenizer: the text tower and what turns words into its input, or None.
        mirror: whether `logits` averages over each image and its mirror image, as the model was measured.
        provenance: where it comes from: free-form, stored with it.
    """

    def __init__(
        self, architecture: str, backbone: Backbone, preprocess: Preprocess, *, head: nn.Linear | None = None,
        classes: list[str] | None = None, head_input: HeadInput = "pooled", projection: Projection | None = None,
        text: TextDesign | None = None, vocabulary: str | None = None, mirror: bool = False,
        provenance: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if (head is None) != (classes is None) or (classes is not None and head and head.out_features != len(classes)):
            raise MiradaError("A head needs one class name for each of its outputs, and class names need a head.")
        self.architecture, self.backbone, self.preprocess = architecture, backbone, preprocess
        self.head, self.classes, self.mirror, self.provenance = head, classes, mirror, provenance or {}
        self.head_input: HeadInput = head_input
        self._projection = projection
        self.projection = None if projection is None else nn.Linear(backbone.dim, projection.dim, projection.bias)
        self.text = None if text is None else TextTower(text)
        self.tokenizer = None if text is None else Tokenizer(text.tokenizer, vocabulary)

    @classmethod
    def from_design(cls, design: Design, vocabulary: str | None = None) -> "Model":
        """A model of that design with random weights. `vocabulary` is the tokenizer's, where it does not ship."""
        backbone = build(design.architecture)
        head = None
        if design.classes is not None:
            wide = {"pooled": backbone.dim, "projected": design.projection.dim if design.projection else backbone.dim}
            head = nn.Linear(wide.get(design.head_input, 2 * backbone.dim), len(design.classes))
        classes = None if design.classes is None else list(design.classes)
        return cls(
            design.architecture, backbone, design.preprocess, head=head, classes=classes, head_input=design.head_input,
            projection=design.projection, text=design.text, vocabulary=vocabulary, mirror=design.mirror,
            provenance=dict(design.provenance),
        )  # fmt: skip

    def add_towers(self, text: TextTower, tokenizer: Tokenizer, projection: nn.Module) -> None:
        """Make these, which were trained beside the backbone, the model's own. `projection` is a linear layer, or an
        identity where the pooled feature is the image feature."""
        self.text, self.tokenizer = text, tokenizer
        self.projection = projection if isinstance(projection, nn.Linear) else None
        self._projection = (
            Projection(self.projection.out_features, self.projection.bias is not None) if self.projection else None
        )

    @property
    def design(self) -> Design:
        """All of the model but its weights."""
        return Design(
            self.architecture, self.preprocess, None if self.classes is None else tuple(self.classes), self.head_input,
            self._projection, None if self.text is None else self.text.design, self.mirror, self.provenance,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dim(self) -> int:
        """Width of the image feature."""
        return self.backbone.dim if self.projection is None else self.projection.out_features

    @torch.no_grad()
    def encode_image(self, x: Images, normalize: bool = False) -> Tensor:
        """The image feature, float32 (B, D), of paths, PIL images, or a ready tensor (B, 3, H, W).

        `normalize` scales each row to length 1. Gradients and training mode are left alone: call `backbone` to train.
        """
        feature = self._evaluating(lambda images: self.project(self.backbone.pooled(images)).float(), x)
        return _unit(feature) if normalize else feature

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
            logits: Tensor = head(self.seen_by_head(images)).float()
            if self.mirror:
                logits = (logits + head(self.seen_by_head(images.flip(-1))).float()) / 2
            return logits

        return self._evaluating(classify, x)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], normalize: bool = False) -> Tensor:
        """The text feature, float32 (B, D), in the space of the image features. `normalize` scales each row to length
        1. Raises `MiradaError` for a model without a text tower."""
        tower = self.two_towers()
        assert self.tokenizer is not None
        ids = self.tokenizer([texts] if isinstance(texts, str) else texts)
        if not len(ids):
            raise MiradaError("There are no texts: give at least one.")
        order = tower.lengths(ids).argsort(stable=True)
        with evaluating(self):
            rows = torch.cat([tower(tower.without_padding(ids[part]).to(self.device)).float()
                              for part in torch.split(order, AT_ONCE)])  # fmt: skip
        feature = torch.empty_like(rows)
        feature[order.to(rows.device)] = rows
        return _unit(feature) if normalize else feature

    @property
    def logit_scale(self) -> float:
        """What cosines of image and text features are multiplied with. Raises `MiradaError` without a text tower."""
        return float(self.two_towers().logit_scale.detach().exp())

    @property
    def logit_bias(self) -> float:
        """What is added to them then; 0 where there is none, as in CLIP."""
        bias = self.two_towers().logit_bias
        return 0.0 if bias is None else float(bias.detach())

    def two_towers(self) -> TextTower:
        """The text tower. Raises `MiradaError` for a model without one."""
        if self.text is None:
            raise MiradaError(
                f"The model {self.architecture!r} has no text tower, it sees images only: load one that has, such as "
                "openai:ViT-B/32."
            )
        return self.text

    def project(self, pooled: Tensor) -> Tensor:
        """The pooled feature (B, backbone.dim) to the image feature (B, dim)."""
        if self.projection is None or self._projection is None:
            return pooled
        projected: Tensor = self.projection(pooled)
        return projected.tanh() if self._projection.tanh else projected

    def seen_by_head(self, images: Tensor) -> Tensor:
        """What the head takes of images (B, 3, H, W), (B, head.in_features)."""
        match self.head_input:
            case "pooled":
                return self.backbone.pooled(images)
            case "projected":
                return self.project(self.backbone.pooled(images))
            case _:
                return self.read_by_head(self.backbone(images))

    def read_by_head(self, features: Features) -> Tensor:
        """What the head takes of the features, (B, head.in_features)."""
        match self.head_input:
            case "pooled":
                return features.pooled
            case "projected":
                return self.project(features.pooled)
            case "class and average":
                return torch.cat([features.prefix[:, 0], features.patches.mean((1, 2))], 1)
            case "class and distillation":
                return features.prefix[:, :2].flatten(1)

    def prepare(self, x: Images) -> Tensor:
        """(B, 3, H, W) of the model's device and type of numbers, preprocessed unless `x` is a tensor already."""
        if isinstance(x, Tensor):
            if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
                raise MiradaError(
                    f"A tensor of images is (B, 3, height, width), floating point and preprocessed, and this one is "
                    f"{tuple(x.shape)}, {str(x.dtype).removeprefix('torch.')}: give paths or PIL images instead."
                )
            return x.to(self.device, next(self.parameters()).dtype)
        images = _listed(x)
        if not images:
            raise MiradaError("There are no images: give at least one path or picture.")
        pixels = torch.stack([self.preprocess(_open(image)) for image in images])
        return pixels.to(self.device, next(self.parameters()).dtype)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `model.safetensors`, `config.json` and, where the vocabulary does not ship, `tokenizer.json`, each
        whole or not at all; returns the folder. Raises `MiradaError` for a model whose parts are no longer those of its
        design, which could not be loaded."""
        target = Path(folder)
        config = {"format": MODEL_FORMAT} | self.design.to_dict()
        texts = {"config.json": json.dumps(config, indent=2) + "\n"}
        if self.tokenizer is not None and self.tokenizer.vocabulary is not None:
            texts["tokenizer.json"] = self.tokenizer.vocabulary
        tensors = self.tensors_of_design()
        parts = {name: target / f".{name}.part" for name in texts}
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                parts[name].write_text(text, encoding="utf-8")
            save_atomically(target / "model.safetensors", tensors, {"format": "pt"})
            for name, part in parts.items():
                os.replace(part, target / name)
        except OSError as error:
            raise MiradaError(f"Cannot save the model in {target} ({why(error)}): choose another folder.") from error
        finally:
            for part in parts.values():
                if part.is_file():
                    part.unlink()
        return target

    def tensors_of_design(self) -> dict[str, Tensor]:
        """All tensors under the names that a model of this design has, as `torch.compile` leaves them elsewhere."""
        found = {name.replace("_orig_mod.", ""): tensor for name, tensor in self.state_dict().items()}
        with without_values():
            vocabulary = None if self.tokenizer is None else self.tokenizer.vocabulary
            wanted = {name: tensor.shape for name, tensor in
                      Model.from_design(self.design, vocabulary).state_dict().items()}  # fmt: skip
        wrong = [name for name in sorted(found.keys() | wanted.keys())
                 if getattr(found.get(name), "shape", None) != wanted.get(name)]  # fmt: skip
        if wrong:
            raise MiradaError(f"This model is no longer of the design that is saved with it, see {few(wrong)}: give a "
                              "head to Model() with its classes, and merge what was added to layers.")  # fmt: skip
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}

    def _evaluating(self, function: Callable[[Tensor], Tensor], x: Images) -> Tensor:
        given = x if isinstance(x, Tensor) else _listed(x)
        with evaluating(self):
            if isinstance(given, Tensor) or len(given) <= AT_ONCE:
                return function(self.prepare(given))
            parts = [given[start : start + AT_ONCE] for start in range(0, len(given), AT_ONCE)]
            return torch.cat([function(self.prepare(part)) for part in parts])


def _listed(x: ImageInput | Iterable[ImageInput]) -> list[ImageInput]:
    return [x] if isinstance(x, (str, os.PathLike, Image.Image)) else list(x)


def _unit(feature: Tensor) -> Tensor:
    unit: Tensor = feature / feature.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit


def _open(image: ImageInput) -> Image.Image:
    if not isinstance(image, (str, os.PathLike, Image.Image)):
        raise MiradaError(f"Images are paths or PIL images, and this is a {type(image).__name__}: use Image.fromarray "
                          "for an array of pixels, and torch.stack for tensors that are preprocessed.")  # fmt: skip
    try:
        return as_seen(image) if isinstance(image, Image.Image) else decode(Path(image).read_bytes())
    except (OSError, UndecodableImage) as error:
        name = "the image" if isinstance(image, Image.Image) else repr(os.fspath(image))
        raise MiradaError(f"Cannot read {name}: {why(error)}; is it an image?") from error
