"""What all layouts of ResNet and RegNet share: a stem, blocks in stages, a classifier, under whatever names.

Depths and widths are read off the shapes, so a network that somebody made deeper or wider than a published one is
loaded as it is.
"""

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mirada.backbones.regnet import REGNET_SIZES, Stage, stages
from mirada.backbones.resnet import RESNET_SIZES
from mirada.checkpoints.table import How, Row, Shapes, Table
from mirada.errors import MiradaError
from mirada.language import format_call

__all__ = ["UNCOUNTED", "Layout", "blocks", "length", "numbered", "regnet", "resnet"]


class Layout(NamedTuple):
    """How a library names the tensors of a residual network."""

    stem: tuple[str, str]  # the stem's convolution and its norm
    block: str  # pattern of what a block's names begin with; its two groups are the stage and the place in it
    parts: Mapping[str, str]  # what our blocks call their parts -> what theirs do
    head: str  # the classifier


def _zeros(_: list[Tensor], shapes: list[torch.Size]) -> list[Tensor]:
    return [torch.zeros(shape, dtype=torch.int64) for shape in shapes]


# Files older than PyTorch 0.4.1 do not say how many batches a norm has seen, and no published output depends on it.
UNCOUNTED: Table = [
    ((), f"backbone.{norm}.num_batches_tracked", How(_zeros, lambda *_: []))
    for norm in (
        "stem.{}",
        "stem.{}.{}",
        "blocks.{}.branch.{}.{}",
        "blocks.{}.shortcut.{}",
        "convolutions.{}.branch.{}",
    )
]


def resnet(shapes: Shapes, layout: Layout, what: str) -> tuple[str, Table]:
    """Architecture and table of a residual network. `what` is its name in errors."""
    found = blocks(shapes, layout.block, what)
    bottleneck = _weight(layout, found[0][0], "branch.4.0") in shapes
    widths = tuple(
        length(shapes, _weight(layout, stage[0], "branch.4.0" if bottleneck else "branch.2.0"), 0, what)
        for stage in found
    )
    narrow = length(shapes, _weight(layout, found[0][0], "branch.2.0"), 1, what)
    if narrow != (widths[0] // 4 if bottleneck else widths[0]):
        raise MiradaError(
            f"{what} is a wide or grouped residual network, which Mirada does not have: load a plain one."
        )
    depths = tuple(map(len, found))
    options: dict[str, Any] = {}
    rows = RESNET_SIZES.items()
    size = next((size for size, row in rows if row == {"depths": depths, "bottleneck": bottleneck}), None)
    if size is None:
        size, options["depths"] = "50" if bottleneck else "18", depths
    if widths != tuple((256 if bottleneck else 64) * 2**stage for stage in range(len(depths))):
        options["widths"] = widths
    return _with_stem(f"resnet-{size}", options, shapes, layout, 64, what), _table(layout, found)


def regnet(shapes: Shapes, layout: Layout, what: str) -> tuple[str, Table]:
    """Architecture and table of a RegNetY."""
    found = blocks(shapes, layout.block, what)
    if _weight(layout, found[0][0], "branch.4.gate.0") not in shapes:
        raise MiradaError(f"{what} has no squeeze-excite, as a RegNetX: Mirada has RegNetY only, load one of those.")
    plan = []
    for stage in found:
        width, group = (length(shapes, _weight(layout, stage[0], "branch.2.0"), dim, what) for dim in (0, 1))
        plan.append(Stage(width, len(stage), group))
    name, options = _regnet_name(plan)
    return _with_stem(name, options, shapes, layout, 32, what), _table(layout, found)


def blocks(shapes: Shapes, pattern: str, what: str) -> list[list[str]]:
    """What the names of each block begin with, by stage, in order."""
    found: dict[tuple[int, int], str] = {}
    for name in shapes:
        if match := re.match(rf"({pattern})\.", name):
            found[int(match[2]), int(match[3])] = match[1]
    if not found:
        raise MiradaError(f"{what} consists of blocks, and the file has none: is it a checkpoint of that network?")
    return [[found[key] for key in sorted(found) if key[0] == stage] for stage in sorted({stage for stage, _ in found})]


def length(shapes: Shapes, name: str, dim: int, what: str) -> int:
    """How long a tensor is along a dimension. Raises `MiradaError` if there is none of that name and rank."""
    shape = shapes.get(name)
    if shape is None or len(shape) <= dim:
        raise MiradaError(f"{what} has a tensor {name}, and the file has none: is it a checkpoint of that network?")
    return shape[dim]


def numbered(shapes: Shapes, head: str) -> tuple[str, ...] | None:
    """Numbers for the classes of a classifier whose names nobody wrote down; None without a classifier."""
    weight = shapes.get(f"{head}.weight")
    return None if weight is None else tuple(map(str, range(weight[0])))


def _table(layout: Layout, found: list[list[str]]) -> Table:
    rows: list[Row] = [(f"{name}.{{}}", f"backbone.stem.0.{index}.{{}}") for index, name in enumerate(layout.stem)]
    for index, block in enumerate(chain.from_iterable(found)):
        parts = layout.parts.items()
        rows += [(f"{block}.{there}.{{}}", f"backbone.blocks.{index}.{here}.{{}}") for here, there in parts]
    return [*rows, (f"{layout.head}.{{}}", "head.{}"), *UNCOUNTED]


def _regnet_name(plan: list[Stage]) -> tuple[str, dict[str, Any]]:
    for size, row in REGNET_SIZES.items():
        if stages(**row) == plan:
            return f"regnety-{size}", {}
        if stages(**row, rounding="nearest") == plan:
            return f"regnety-{size}", {"rounding": "nearest"}
    return "regnety-400mf", {"plan": tuple(map(tuple, plan))}


def _weight(layout: Layout, block: str, part: str) -> str:
    return f"{block}.{layout.parts[part]}.weight"


def _with_stem(name: str, options: dict[str, Any], shapes: Shapes, layout: Layout, usual: int, what: str) -> str:
    """The architecture, where the stem's width is said if it is not the usual one."""
    width = length(shapes, f"{layout.stem[0]}.weight", 0, what)
    return format_call(name, options if width == usual else options | {"stem_width": width})
