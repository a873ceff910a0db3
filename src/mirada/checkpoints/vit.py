"""What the tables of all plain vision transformers share: the architecture's name, told from names and shapes."""

import math
from typing import Any

from mirada.backbones import VIT_SIZES
from mirada.checkpoints.table import Shapes
from mirada.errors import MiradaError
from mirada.language import format_call

__all__ = ["depth_of", "grid_of", "shape_of", "side_of", "vit_name"]


def shape_of(shapes: Shapes, name: str, where: str) -> tuple[int, ...]:
    """The shape of a tensor that every file of this layout has. Raises `MiradaError` if this one has not."""
    if name not in shapes:
        raise MiradaError(f"{where} has a tensor {name}, and the file has none: is it a checkpoint of that model?")
    return tuple(shapes[name])


def depth_of(shapes: Shapes, start: str) -> int:
    """How many blocks there are whose tensors are called `start` + number + `.`."""
    numbers = [name[len(start) :].partition(".")[0] for name in shapes if name.startswith(start)]
    return len({number for number in numbers if number.isdecimal()})


def grid_of(count: int, where: str) -> int:
    """The side of a square grid of `count` patches."""
    side = math.isqrt(max(count, 0))
    if side * side != count or side == 0:
        raise MiradaError(f"{where} has a table of {count} positions, which is no square: Mirada cannot load it.")
    return side


def vit_name(dim: int, depth: int, num_heads: int, hidden: int, patch_size: int, **options: Any) -> str:
    """The name of a ViT of that width, depth, heads and feed-forward width, with `options` where they are not None:
    `vit-b/32(activation='quickgelu')`, or `vit-b/16(dim=896, num_heads=14)` for a size without a name."""
    wanted = {"dim": dim, "depth": depth, "num_heads": num_heads}
    options = {key: value for key, value in options.items() if value is not None}
    for name, row in VIT_SIZES.items():
        if {key: row[key] for key in wanted} == wanted:
            ratio = row.get("mlp_ratio", 4.0)
            other = {} if round(dim * ratio) == hidden else {"mlp_ratio": hidden / dim}
            return format_call(f"vit-{name}/{patch_size}", other | options)
    base = VIT_SIZES["b"]
    other = {key: value for key, value in wanted.items() if base[key] != value}
    if hidden != 4 * dim:
        other["mlp_ratio"] = hidden / dim
    return format_call(f"vit-b/{patch_size}", other | options)


def side_of(config: dict[str, Any], name: str, usual: int | None = None) -> int:
    """A size of images or patches in transformers' config, which is a number or a pair of equal ones."""
    value: Any = config.get(name, usual)
    sides = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(side, int) for side in sides) or len(set(sides)) != 1:
        raise MiradaError(f"transformers' {name} is {value}: Mirada knows squares only.")
    return int(sides[0])
