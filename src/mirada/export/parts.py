"""What all layouts start from: a model taken apart, and the ways to say the same network differently.

Other libraries build some things always and others never: a gain in every branch, a position for every token. Where a
gain of one or a position of zero changes nothing, a model is given them; where two constants are only ever added, they
become one. Each function here leaves every output as it is.
"""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mirada.backbones import SIZES
from mirada.backbones.vit import resampled, sincos_positions
from mirada.errors import MiradaError
from mirada.language import call
from mirada.model import Design, Model

__all__ = [
    "Parts", "Proposal", "Written", "for_its_pixels", "head_on_class_and_average", "options_of", "take_apart",
    "with_gains", "with_positions_for",
]  # fmt: skip

Tensors = dict[str, Tensor]


class Parts(NamedTuple):
    """A model: what its backbone was built with (every option, defaults too), its tensors, and the rest of it."""

    family: str
    dim: int
    options: dict[str, Any]
    tensors: Tensors
    design: Design
    vocabulary: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many there are; 0 without a head."""
        return len(self.design.classes or ())


class Proposal(NamedTuple):
    """What would be written: to be read by the layout's own plan, which says what network and which table it is."""

    parts: Parts
    texts: dict[str, str]  # of the small files, by name
    telltales: dict[str, tuple[int, ...]]  # shapes of a few tensors there: those by which a plan tells networks apart
    extra: Tensors = {}  # tensors that the library always has and no output depends on  # noqa: RUF012
    architecture: str = ""


class Written:
    """Files that are not there yet, for a plan to read."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts, self.where = texts, "the exported folder"

    def names(self) -> list[str]:
        return sorted(self.texts)

    def path(self, name: str) -> Path | None:  # noqa: ARG002  # none is on a disk
        return None

    def text(self, name: str) -> str | None:
        return self.texts.get(name)

    def json(self, name: str) -> dict[str, Any] | None:
        text = self.texts.get(name)
        return None if text is None else dict(json.loads(text))


def take_apart(model: Model) -> Parts:
    """Raises `MiradaError` for what no other library does."""
    design = model.design
    if design.mirror:
        raise MiradaError(
            'This model averages over each image and its mirror image, which no other library does: set "mirror" to '
            "false in its config.json to export it without."
        )
    family, options = options_of(design.architecture)
    if options.get("in_channels", 3) != 3:
        raise MiradaError(f"This model sees {options['in_channels']} channels, not the three that can be exported.")
    tensors = {name: tensor.detach().cpu() for name, tensor in model.tensors_of_design().items()}
    vocabulary = None if model.tokenizer is None else model.tokenizer.vocabulary
    return Parts(family, model.backbone.dim, options, tensors, design, vocabulary)


def options_of(architecture: str) -> tuple[str, dict[str, Any]]:
    """The family, and all options with which `build` makes the backbone."""
    name, given = call(architecture)
    base, slash, patch = name.partition("/")
    size = SIZES[base]
    options = {key: entry.default for key, entry in inspect.signature(size.build).parameters.items()} | given
    if size.patch is not None:
        options["patch_size"] = int(patch) if slash else size.patch
    if size.family == "vit":
        options["hidden"] = round(options["dim"] * options.pop("mlp_ratio"))
        positioned = options["prefix_positions"]
        options["prefix_positions"] = int(options["pooling"] == "class") if positioned is None else positioned
        if options["positions"] != "learned":
            options["prefix_positions"] = 0
    return size.family, options


def for_its_pixels(parts: Parts) -> Parts:
    """A ViT built for the image size that its preprocessing makes, with a table of positions of that size, unless they
    are rotary: fixed positions, or none, as a table; a learned one resampled as the model itself does it.

    Raises `MiradaError` for images that are not square.
    """
    options, tensors, (height, width) = parts.options, parts.tensors, parts.design.preprocess.size
    if height != width:
        raise MiradaError(f"This model's images are {height}x{width} pixels: only models of square ones are exported.")
    there = options | {"image_size": height}
    if options["positions"] == "rotary" or (options["positions"] == "learned" and height == options["image_size"]):
        return parts._replace(options=there)
    grid = (height // options["patch_size"],) * 2
    if options["positions"] == "learned":
        table = resampled(tensors["backbone.position"], grid, options["resample"])
        note = f"positions were interpolated from images of {options['image_size']} pixels to {height}"
    else:
        sincos = options["positions"] == "sincos"
        table = sincos_positions(options["dim"], grid, torch.device("cpu")) if sincos else torch.zeros(1, 1, 1)
        table = table.expand(1, grid[0] * grid[1], options["dim"])
        there |= {"positions": "learned", "prefix_positions": 0}
        note = f"positions={options['positions']!r} became a table for images of {height} pixels"
    return parts._replace(options=there, tensors=tensors | {"backbone.position": table}, notes=(*parts.notes, note))


def with_positions_for(parts: Parts, count: int) -> Parts:
    """So many of the tokens before the patches have a position: theirs is added to the tokens, and the new is zero."""
    options, tensors = parts.options, dict(parts.tensors)
    if options["prefix_positions"] == count:
        return parts
    if (table := tensors.pop("backbone.class_position", None)) is not None:
        prefix = tensors["backbone.prefix"].clone()
        prefix[:, : table.shape[1]] += table
        tensors["backbone.prefix"] = prefix
    if count:
        tensors["backbone.class_position"] = torch.zeros(1, count, options["dim"])
    return parts._replace(options=options | {"prefix_positions": count}, tensors=tensors)


def with_gains(parts: Parts) -> Parts:
    """Branches with a gain, of one where there was none."""
    if parts.options["layer_scale"] is not None:
        return parts
    gains = {f"backbone.blocks.{index}.scale{branch}.gain": torch.ones(parts.options["dim"])
             for index in range(parts.options["depth"]) for branch in (1, 2)}  # fmt: skip
    return parts._replace(options=parts.options | {"layer_scale": 1.0}, tensors=parts.tensors | gains)


def head_on_class_and_average(parts: Parts) -> Parts:
    """A head that reads the class token, as one that also reads the mean patch and does not care for it."""
    if parts.design.classes is None or parts.design.head_input != "pooled":
        return parts
    weight = parts.tensors["head.weight"]
    return parts._replace(
        design=replace(parts.design, head_input="class and average"),
        tensors=parts.tensors | {"head.weight": torch.cat([weight, torch.zeros_like(weight)], 1)},
    )
