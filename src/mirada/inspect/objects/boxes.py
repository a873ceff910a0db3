"""From masks of patches to masks and boxes of pixels."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Box", "box", "boxes", "component", "overlap", "to_pixels"]


class Box(NamedTuple):
    """In pixels (or patches) of the mask: `right` and `bottom` are the first that are outside."""

    left: int
    top: int
    right: int
    bottom: int


def to_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., H, W) of patches to maps (..., height, width) of pixels: masks stay bool and keep their steps, scores
    are interpolated."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:]).float()
    if maps.dtype == torch.bool:
        larger = F.interpolate(flat, size, mode="nearest-exact") > 0.5
    else:
        larger = F.interpolate(flat, size, mode="bilinear", align_corners=False)
    return larger.view(*maps.shape[:-2], *size)


def component(mask: Tensor, seed: tuple[int, int]) -> Tensor:
    """The part of a mask (H, W) that hangs together, side by side, around (row, column); nothing if the mask is false
    there."""
    numbered = torch.from_numpy(ndimage.label(mask.cpu().numpy())[0])
    own = numbered[seed]
    return (numbered == own) & bool(own > 0)


def box(mask: Tensor) -> Box | None:
    """Around all of a mask (H, W); None around nothing."""
    rows, columns = mask.nonzero(as_tuple=True)
    if not len(rows):
        return None
    return Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def boxes(mask: Tensor) -> list[Box]:
    """Around each part of a mask (H, W) that hangs together, corner to corner too, the largest area first."""
    numbered, _ = ndimage.label(mask.cpu().numpy(), structure=np.ones((3, 3)))
    found = [Box(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(numbered)]
    return sorted(found, key=lambda one: -area(one))


def area(one: Box) -> int:
    """Pixels inside."""
    return max(0, one.right - one.left) * max(0, one.bottom - one.top)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, from 0 to 1."""
    common = area(Box(max(one.left, other.left), max(one.top, other.top),
                      min(one.right, other.right), min(one.bottom, other.bottom)))  # fmt: skip
    return common / (area(one) + area(other) - common)
