"""Which patches are hidden, and how: what masked objectives share."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Views

__all__ = ["block_masks", "covered", "hide", "masks_of_half", "of_whole_patches", "random_masks"]


def of_whole_patches(views: Views, stride: int) -> Views:
    """These views, of images that divide into patches of `stride` pixels only: others raise `MiradaError`."""
    return partial(_of_whole_patches, views=views, stride=stride)


def _of_whole_patches(samples: Samples, views: Views, stride: int) -> dict[str, Tensor]:
    height, width = samples.size
    if height // stride * (width // stride) == 1:
        raise MiradaError(f"Patches are to be hidden, and images of {height}x{width} pixels are a single one: "
                          "use a larger image size or a smaller patch.")  # fmt: skip
    if height % stride or width % stride:
        below = max(1, height // stride) * stride
        raise MiradaError(f"Patches of {stride} pixels are to be hidden, and images of {height}x{width} pixels do not "
                          f"divide into them: use an image size of {below} or {below + stride}.")  # fmt: skip
    return views(samples)


def random_masks(count: int, grid: tuple[int, int], ratio: float) -> Tensor:
    """bool (B, H, W), True where hidden: the same number in every image, at least one and never all."""
    places = grid[0] * grid[1]
    hidden = _number(ratio, places)
    order = torch.rand(count, places).argsort(1)
    return (order.argsort(1) < hidden).view(count, *grid)


def block_masks(count: int, grid: tuple[int, int], ratio: float) -> Tensor:
    """bool (B, H, W), True where hidden: the same number in every image, in rectangles of about four patches or more,
    a third to three times as high as wide (BEiT, Bao et al. 2021, arXiv:2106.08254, algorithm 1, whose smallest have 16
    of 196). They may overlap, and single patches fill up what is left."""
    height, width = grid
    wanted = _number(ratio, height * width)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in masks:
        left = wanted
        for _ in range(100):
            if left <= 0:
                break
            area = min(4.0, left) + float(torch.rand(())) * max(0.0, left - 4.0)
            shape = math.exp((2 * float(torch.rand(())) - 1) * math.log(1 / 0.3))  # height over width
            tall = min(height, max(1, round((area * shape) ** 0.5)))
            wide = min(width, max(1, round((area / shape) ** 0.5)))
            top, start = int(torch.randint(height - tall + 1, ())), int(torch.randint(width - wide + 1, ()))
            block = mask[top : top + tall, start : start + wide]
            if 0 < int((~block).sum()) <= left:
                block.fill_(True)
                left = wanted - int(mask.sum())
        free = (~mask).flatten().nonzero()[:, 0]
        mask.view(-1)[free[torch.randperm(len(free))[: max(left, 0)]]] = True  # what rectangles could not fill
    return masks


def masks_of_half(count: int, grid: Sequence[int]) -> Tensor:
    """bool (B, H, W): blocks that hide 10 to 50% of every second image, in random order, as DINOv2 draws them for
    iBOT's loss (arXiv:2304.07193, section 4)."""
    masks = torch.zeros(count, grid[0], grid[1], dtype=torch.bool)
    chosen = torch.randperm(count)[: max(1, count // 2)]
    for place, share in zip(chosen.tolist(), torch.linspace(0.1, 0.5, len(chosen)).tolist(), strict=True):
        masks[place] = block_masks(1, (grid[0], grid[1]), share)[0]
    return masks


def covered(images: Tensor, masks: Tensor) -> Tensor:
    """Images (B, C, height, width) that show the next image of the batch where `masks` (B, H, W) are True, so
    that a stem whose filters overlap cannot see what is hidden from the patches beside it. Not one colour: BatchNorm's
    statistics would no longer be those of images. One image alone shows zeros there, the mean colour."""
    hidden = _on_grid(masks, images.shape[2:]).to(images.device)[:, None]
    return torch.where(hidden, images.roll(1, 0) if len(images) > 1 else torch.zeros_like(images), images)


def hide(stem: Tensor, masks: Tensor, token: Tensor) -> Tensor:
    """Patch embeddings (B, h, w, E) with `token` (E,) where `masks` (B, H, W) are True. A stem's grid may be finer than
    the masks' by whole factors, as in convolutional networks."""
    hidden = _on_grid(masks, stem.shape[1:3]).to(stem.device)[..., None]
    return torch.where(hidden, token.to(stem.dtype), stem)


def _on_grid(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Masks (B, H, W) as (B, *grid), whose sides are whole multiples of theirs."""
    rows, columns = grid[0] // masks.shape[1], grid[1] // masks.shape[2]
    return masks.repeat_interleave(rows, 1).repeat_interleave(columns, 2)


def _number(ratio: float, places: int) -> int:
    return min(max(1, round(ratio * places)), max(1, places - 1))
