"""Jigsaw puzzles (Noroozi and Favaro 2016, arXiv:1603.09246): nine tiles of an image come in one of many fixed orders;
which one is it? Telling needs to know parts of objects and how they belong together. No label is used.
"""

import math
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from mirada.data.augment import Augmentation, augmentation
from mirada.data.colour import LUMA
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Encoder, Objective, classified
from mirada.objectives.heads import projector

__all__ = ["Jigsaw", "cut", "large_enough", "orders", "plain"]

MOST = 10_000  # orders; to choose each of them takes a look at all 9!
FLAT = 0.02  # tiles whose colours in 0..1 deviate less are not stretched further: it would be noise


def every_order(count: int) -> Tensor:
    """All orders of `count` things, int8 (count!, count), lexicographically."""
    known = torch.zeros(1, 1, dtype=torch.int8)
    for more in range(2, count + 1):
        first = torch.arange(more, dtype=torch.int8).repeat_interleave(len(known))[:, None]
        rest = known.repeat(more, 1)
        known = torch.cat([first, rest + (rest >= first)], 1)
    return known


@lru_cache
def orders(count: int) -> Tensor:
    """`count` orders of nine tiles, int64 (count, 9), far from each other in Hamming distance.

    Chosen greedily as in the paper's algorithm 1: each next one has the largest sum of distances to those chosen. Where
    the paper leaves the choice open (the first one, and ties) this takes the tidy one and the one whose nearest chosen
    is farthest, then the lexicographically first, so that a run is repeatable.
    """
    known = every_order(9).T.contiguous()  # (9, 9!)
    total = torch.zeros(known.shape[1], dtype=torch.int32)
    nearest = torch.full_like(total, 9, dtype=torch.int8)
    chosen, place = [], 0
    for _ in range(count):
        chosen.append(known[:, place])
        distance = (known != known[:, place, None]).sum(0, dtype=torch.int8)
        total += distance
        nearest = torch.minimum(nearest, distance)
        score = torch.where(nearest > 0, 16 * total + nearest, -1)  # distance 0: it is chosen already
        place = int(score.argmax())
    return torch.stack(chosen).long()


def large_enough(size: tuple[int, int], needed: int, name: str, stride: int) -> tuple[int, int]:
    """The size to view images at: `size`, or up to twice as large where its shorter side is less than `needed`."""
    short = min(size)
    if 2 * short < needed:
        raise MiradaError(
            f"{name} cuts tiles of one patch ({stride} pixels) or more out of an image, with gaps between them, and "
            f"needs images of {needed} pixels, not {size[0]}x{size[1]}: use an image size of {needed} "
            "or a smaller patch."
        )
    scale = max(1.0, needed / short)
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def cut(images: Tensor, tops: Tensor, lefts: Tensor, side: int) -> Tensor:
    """Square tiles (B, T, C, side, side) of images (B, C, H, W), from their upper left corners, each (B, T)."""
    offsets = torch.arange(side)
    rows, columns = ((start[:, :, None] + offsets).to(images.device) for start in (tops, lefts))
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    return images.permute(0, 2, 3, 1)[batch, rows[:, :, :, None], columns[:, :, None, :]].permute(0, 1, 4, 2, 3)


def plain(samples: Samples, tiles: Tensor, grey: float) -> Tensor:
    """Normalised tiles (B, T, C, side, side) without what gives their places away at no thought.

    A share `grey` of the images loses its colour, because lenses shift colours towards the corners; and each tile gets
    zero mean and unit deviation in each channel, because neighbours are alike in brightness (section 3.2 of the paper).
    """
    pixels = samples.pixels(tiles)
    chosen = (torch.rand(len(tiles), generator=samples.generator) < grey).to(tiles.device)[:, None, None, None, None]
    luma = pixels.new_tensor(LUMA)[:, None, None]
    pixels = torch.where(chosen, (pixels * luma).sum(2, keepdim=True), pixels)
    deviation, mean = torch.std_mean(pixels, (-2, -1), keepdim=True, correction=0)
    return (pixels - mean) / deviation.clamp(min=FLAT)


def views(samples: Samples, transform: Augmentation, stride: int, count: int, grey: float) -> dict[str, Tensor]:
    """Tiles (B * 9, C, side, side), nine of an image after each other in the order that its label names.

    The image is divided into 3x3 cells. A tile is anywhere in its cell, as in the paper: its side is the largest
    multiple of the stride that is smaller than the cell. Gaps are between none and twice the room, so that edges seldom
    continue in the next tile, and how far they are off tells nothing.
    """
    height, width = large_enough(samples.size, 3 * (stride + 1), "Jigsaw", stride)
    image = samples.view(transform, size=(height, width))
    side = (min(height, width) // 3 - 1) // stride * stride
    generator, cell = samples.generator, torch.arange(9)
    corners = []
    for length, index in ((height, cell // 3), (width, cell % 3)):
        room = length // 3 - side
        corners.append(index * (length // 3) + torch.randint(room + 1, (len(image), 9), generator=generator))
    label = torch.randint(count, (len(image),), generator=generator)
    order = orders(count)[label]  # (B, 9): which cell's tile comes first, second, ...
    tiles = cut(image, corners[0].gather(1, order), corners[1].gather(1, order), side)
    return {"tiles": plain(samples, tiles, grey).flatten(0, 1), "label": label}


class Jigsaw(Objective):
    """Classification of the order: all tiles go through the backbone in one batch, their features, side by side,
    through a small head.

    Args:
        orders: how many orders there are to tell apart, up to 10,000; the paper finds 10 too easy, and 35 to 1000 alike
            (table 3).
        grey: share of images that lose their colour; the paper's is 0.3.
        hidden: width of the head.
        augment: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options, applied before cutting.
    """

    pooled = ("tiles",)

    def __init__(
        self, backbone: Encoder, *, orders: int = 100, grey: float = 0.3, hidden: int = 512,
        augment: str | dict[str, Any] | Augmentation = "light",
    ) -> None:  # fmt: skip
        super().__init__()
        if not 2 <= orders <= MOST:
            raise MiradaError(f"Jigsaw cannot choose among {orders} orders: use from 2 to {MOST}.")
        self.views = partial(views, transform=augmentation(augment), stride=backbone.stride, count=orders, grey=grey)
        self.head = projector(9 * backbone.dim, hidden, orders)

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        features = backbone.pooled(batch["tiles"])  # (B * 9, D)
        logits = self.head(features.reshape(-1, 9 * features.shape[1])).float()
        label = batch["label"].to(logits.device)
        return classified(logits, label)
