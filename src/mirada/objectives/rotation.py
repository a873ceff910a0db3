"""Rotation prediction (Gidaris et al. 2018, arXiv:1803.07728): by which quarter turn was the image rotated?

Telling needs to know what is up: where heads, feet and the ground are. No label is used.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.data.augment import Augmentation, augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Encoder, Objective, classified

__all__ = ["Rotation"]


EVEN = 0.85  # of the pixels along the longer side: differences along both sides of noise then agree within 2 to 8%


def even_side(samples: Samples) -> int:
    """The side at which views are as sharp from left to right as from top to bottom. Canvases hold long pictures
    squashed, so views would be softer along them, which tells half of the turn and needs no look at what is there. A
    tenth of the images may be longer still, for whose sake not all are blurred."""
    side = samples.size[0]
    ratio = float(torch.quantile(torch.minimum(samples.aspect, 1 / samples.aspect), 0.1))
    return side if ratio > 0.95 else min(side, max(side // 2, round(EVEN * ratio * samples.canvases.shape[-1])))


def views(samples: Samples, transform: Augmentation) -> dict[str, Tensor]:
    """Each image once, under a random quarter turn, which is its label."""
    height, width = samples.size
    if height != width:
        raise MiradaError(f"Rotation needs square images, not {height}x{width}: use one number as image size.")
    even = even_side(samples)
    upright = samples.view(transform, size=(even, even))
    if even < height:
        upright = F.interpolate(upright, (height, width), mode="bilinear")
    label = torch.randint(4, (len(upright),), generator=samples.generator)
    image = torch.empty_like(upright)
    for turns in range(4):
        chosen = (label == turns).to(upright.device)
        image[chosen] = torch.rot90(upright[chosen], turns, (2, 3))
    return {"image": image, "label": label}


class Rotation(Objective):
    """Four-way classification of the turn.

    Args:
        augment: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options, applied before the turn.
    """

    pooled = ("image",)

    def __init__(self, backbone: Encoder, *, augment: str | dict[str, Any] | Augmentation = "light") -> None:
        super().__init__()
        self.views = partial(views, transform=augmentation(augment))
        self.head = nn.Linear(backbone.dim, 4)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        logits = self.head(backbone.pooled(batch["image"])).float()
        label = batch["label"].to(logits.device)
        return classified(logits, label)
