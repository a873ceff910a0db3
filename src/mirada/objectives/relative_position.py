"""Relative position (Doersch, Gupta and Efros 2015, arXiv:1505.05192): on which of its eight sides does one tile of an
image have another? And position prediction (Zhai et al. 2022, arXiv:2207.07611): from where does each patch come?

Both need to know what things are made of. No label is used.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mirada.backbones.vit import sincos_positions
from mirada.data.augment import Augmentation, augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Encoder, Objective, classified
from mirada.objectives.heads import projector
from mirada.objectives.jigsaw import cut, large_enough, plain

__all__ = ["SIDES", "RelativePosition", "pairs", "shuffled"]

SIDES = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # down, right; a label is a place here
PLACE_DIM = 128  # width of the fixed code of a place


def pairs(samples: Samples, transform: Augmentation, stride: int, grey: float) -> dict[str, Tensor]:
    """Tiles (B * 2, C, side, side): one from anywhere, and after it its neighbour on the side that the label names.

    As in the paper, half a tile lies between the two, and the neighbour is up to 2 * 7/96 of a tile off its place, so
    that neither lines nor textures across the gap tell the side. A tile's side is the largest multiple of the stride
    not above a third of the image; the pair lies anywhere, so that the place of one tile does not tell the side.
    """
    size = large_enough(samples.size, 3 * stride, "Relative position", stride)
    image = samples.view(transform, size=size)
    side = min(size) // 3 // stride * stride
    step, jitter = side + side // 2, max(1, round(side * 7 / 96 * 2))
    jitter = min(jitter, min(size) - side - step)
    count, generator = len(image), samples.generator
    label = torch.randint(len(SIDES), (count,), generator=generator)
    offset = step * torch.tensor(SIDES)[label]
    offset = offset + torch.randint(-jitter, jitter + 1, (count, 2), generator=generator)
    room = torch.tensor(size) - side - offset.abs()  # the places for both
    first = (torch.rand(count, 2, generator=generator) * (room + 1)).long() + (-offset).clamp(min=0)
    corners = torch.stack([first, first + offset], 1)  # (B, 2 tiles, 2 axes)
    tiles = cut(image, corners[..., 0], corners[..., 1], side)
    return {"image": plain(samples, tiles, grey).flatten(0, 1), "label": label}


def shuffled(samples: Samples, transform: Augmentation, stride: int) -> dict[str, Tensor]:
    """Images (B, C, H, W) whose patches of `stride` pixels were mixed up, and for each place the patch that came there
    (B, N), counted row by row.

    Patches are cut with gaps of a quarter of their side and as much jitter out of a larger view, so that few of their
    edges fit together.
    """
    rows, columns = (length // stride for length in samples.size)
    if rows * columns < 2:
        raise MiradaError(
            f"Images of {samples.size[0]}x{samples.size[1]} pixels have no two patches of {stride} to mix up: use an "
            f"image size of {2 * stride} or more, or a smaller patch."
        )
    gap = max(1, stride // 4)
    cell = stride + gap
    image = samples.view(transform, size=(rows * cell, columns * cell))
    count, patches, generator = len(image), rows * columns, samples.generator
    order = torch.rand(count, patches, generator=generator).argsort(1)
    jitter = torch.randint(gap + 1, (2, count, patches), generator=generator)
    mixed = cut(image, order // columns * cell + jitter[0], order % columns * cell + jitter[1], stride)
    mixed = mixed.reshape(count, rows, columns, *mixed.shape[2:]).permute(0, 3, 1, 4, 2, 5)
    # now (B, C, rows, stride, columns, stride)
    return {"image": mixed.flatten(4, 5).flatten(2, 3), "label": order}


class RelativePosition(Objective):
    """Classification of the side, or of the place of each patch.

    A ViT adds positions to its patches. In the second form they tell nothing, for the pixels were mixed up before, and
    so any backbone can be trained: each output patch is compared with a learned code of each place, on any grid.

    Args:
        form: "pairs" asks for the side of a neighbour, "location" for the place of each patch.
        grey: share of images whose pairs lose their colour, which closes the shortcut of chromatic aberration; 0.3
            where it is None. Of mixed patches, as in their paper, none does.
        hidden: width of the head.
        augment: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options, applied before cutting.
    """

    def __init__(
        self, backbone: Encoder, *, form: str = "pairs", grey: float | None = None, hidden: int = 512,
        augment: str | dict[str, Any] | Augmentation = "light",
    ) -> None:  # fmt: skip
        super().__init__()
        self.form, transform, stride = form, augmentation(augment), backbone.stride
        if form == "pairs":
            self.pooled = ("image",)
            self.views = partial(pairs, transform=transform, stride=stride, grey=0.3 if grey is None else grey)
            self.head = projector(2 * backbone.dim, hidden, len(SIDES))
        elif form == "location":
            if grey is not None:
                raise MiradaError("Mixed patches keep their colour: leave grey out, or take form='pairs'.")
            self.encoded = ("image",)
            self.views = partial(shuffled, transform=transform, stride=stride)
            self.head = projector(backbone.dim, hidden, PLACE_DIM)
            self.place = nn.Linear(PLACE_DIM, PLACE_DIM, bias=False)
        else:
            raise MiradaError(f"There is no form {form!r} of relative position: choose 'pairs' or 'location'.")

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        if self.form == "pairs":
            pooled = backbone.pooled(batch["image"])
            logits = self.head(pooled.reshape(-1, 2 * pooled.shape[1])).float()  # (B, 8)
        else:
            patches = backbone(batch["image"]).patches
            _, rows, columns, _ = patches.shape
            code = self.place(sincos_positions(PLACE_DIM, (rows, columns), patches.device)[0])  # (N, 128)
            logits = (self.head(patches.flatten(1, 2)) @ code.mT).float().flatten(0, 1)  # (B * N, N)
        label = batch["label"].to(logits.device).flatten()
        return classified(logits, label)
