"""Colorization (Zhang, Isola and Efros 2016, arXiv:1603.08511): which colour does each patch of a grey image have?
Telling needs to know what things are. No label is used.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.data.augment import Augmentation, augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Encoder, Objective
from mirada.processes import processes, summed

__all__ = ["BINS", "Colorization", "lab", "rebalanced", "soft_encode"]

# For each a from -90 to 100 in tens, the first and the last b, also in tens: the authors' bins. There are 313 of them.
# Colours of sRGB fall into 262 (nearest bin); the others are on the rim, where the soft encoding of saturated colours
# reaches them. All corners of squares of the grid that sRGB touches would be 304, all among these.
ROWS = (
    (5, 9), (2, 9), (0, 9), (-2, 9), (-3, 10), (-4, 10), (-5, 10), (-5, 10), (-6, 10), (-7, 10),
    (-8, 9), (-8, 9), (-9, 9), (-10, 9), (-10, 8), (-11, 8), (-11, 8), (-11, 7), (-11, 7), (-9, 0),
)  # fmt: skip
BINS = torch.tensor([[a, 10.0 * b] for a, row in zip(range(-90, 101, 10), ROWS, strict=True)
                     for b in range(row[0], row[1] + 1)])  # fmt: skip

SRGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227),
)  # fmt: skip
WHITE = (0.950456, 1.0, 1.088754)  # of sRGB, D65: the sums of the rows


def lab(pixels: Tensor) -> Tensor:
    """sRGB in 0..1 (B, 3, H, W) to CIE L*a*b*: L in 0..100, a in -87..99, b in -108..95."""
    pixels = pixels.clamp(0, 1)
    linear = torch.where(pixels > 0.04045, ((pixels + 0.055) / 1.055) ** 2.4, pixels / 12.92)
    matrix = pixels.new_tensor(SRGB_TO_XYZ) / pixels.new_tensor(WHITE)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    root = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-6) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def soft_encode(ab: Tensor, bins: Tensor, sigma: float = 5.0, neighbours: int = 5) -> tuple[Tensor, Tensor]:
    """Colours (N, 2) as shares (N, 5) of their nearest bins, whose numbers are (N, 5), the nearest first: a Gaussian of
    the distance, normalised (section 2.1 of the paper: H_gt^-1)."""
    distance, index = torch.cdist(ab, bins, compute_mode="donot_use_mm_for_euclid_dist").topk(neighbours, largest=False)
    return (-distance.square() / (2 * sigma**2)).softmax(1), index


def rebalanced(prior: Tensor, mixing: float) -> Tensor:
    """Weights (Q,) of bins with the prior probabilities (Q,): equation 4, w = 1 / ((1 - lambda) p + lambda / Q), so
    scaled that the expected weight under the prior is one."""
    weight = 1 / ((1 - mixing) * prior + mixing / len(prior))
    return weight / (prior * weight).sum()


def views(samples: Samples, transform: Augmentation) -> dict[str, Tensor]:
    """The lightness L as a grey image (B, 3, H, W), normalised like any other, and the colours ab (B, 2, H, W)."""
    view = samples.view(transform)
    colours = lab(samples.pixels(view))
    black, white = (samples.pixels(view.new_full((1, view.shape[1], 1, 1), value)) for value in (0.0, 1.0))
    grey = (colours[:, :1] / 100 - black) / (white - black)  # the inverse of `samples.pixels`
    return {"image": grey, "ab": colours[:, 1:]}


class Colorization(Objective):
    """Classification of the colour of each patch, or of `cells` x `cells` squares of it, among 313 bins.

    The weights of rare colours come from how often bins were seen, as a running average over the batches of the run,
    instead of from a table counted on another data set.

    Args:
        mixing: the paper's lambda: 0 weighs bins by the inverse of their frequency, 1 does not rebalance at all.
        cells: squares along a patch's side that are coloured separately; by default one, or two for patches of 8 pixels
            and more. The paper colours squares of 4 pixels.
        memory: how much of the running average of frequencies stays at each step.
        augment: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options.
    """

    encoded = ("image",)
    prior: Tensor
    updates: Tensor
    bins: Tensor

    def __init__(
        self, backbone: Encoder, *, mixing: float = 0.5, cells: int | None = None, memory: float = 0.99,
        augment: str | dict[str, Any] | Augmentation = "light",
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 < mixing <= 1:
            raise MiradaError(f"A mixing of {mixing} gives colours never seen no finite weight: use above 0, up to 1.")
        if not 0 <= memory < 1:
            raise MiradaError(f"A memory of {memory} never learns how frequent colours are: use from 0 to below 1.")
        self.cells = (2 if backbone.stride >= 8 else 1) if cells is None else cells
        if not 1 <= self.cells <= backbone.stride:
            raise MiradaError(f"A patch of {backbone.stride} pixels does not divide into {self.cells} cells a side: "
                              f"use cells from 1 to {backbone.stride}.")  # fmt: skip
        self.views = partial(views, transform=augmentation(augment))
        self.mixing, self.memory = mixing, memory
        self.head = nn.Linear(backbone.dim, self.cells**2 * len(BINS))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("bins", BINS.clone(), persistent=False)
        self.register_buffer("prior", torch.full((len(BINS),), 1 / len(BINS)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        features = backbone(batch["image"]).patches  # (B, h, w, D)
        grid = (features.shape[1] * self.cells, features.shape[2] * self.cells)
        colours = F.adaptive_avg_pool2d(batch["ab"].float(), grid).permute(0, 2, 3, 1).flatten(0, 2)  # (N, 2)
        share, index = soft_encode(colours, self.bins)
        if self.training:
            self.remember(share, index)
        weight = rebalanced(self.prior, self.mixing)[index[:, 0]]
        logits = self.head(features).unflatten(-1, (self.cells, self.cells, -1))  # (B, h, w, cells, cells, Q)
        logits = logits.transpose(2, 3).flatten(0, 4).float()  # (N, Q)
        loss = -(share * logits.log_softmax(1).gather(1, index)).sum(1)  # equation 2 without its weight
        right = (logits.argmax(1) == index[:, 0]).float()
        total = (weight * loss).mean()
        frequencies = self.prior.clamp(min=1e-9).log()[index]  # what one says who knows only how frequent colours are
        chance = -(weight * (share * frequencies).sum(1)).mean()
        return {"loss": total, "relative_loss": total.detach() / chance.clamp(min=1e-6), "accuracy": right.mean(),
                "unweighted": loss.mean()}  # fmt: skip

    @torch.no_grad()
    def remember(self, share: Tensor, index: Tensor) -> None:
        """Move the prior towards the batch's frequencies: the mean of all batches so far, until that would be slower
        than `memory` allows."""
        seen = torch.zeros_like(self.prior).index_add_(0, index.flatten(), share.flatten())
        seen = summed(seen / len(share)) / processes()
        count = float(self.updates)
        self.prior.lerp_(seen, 1 - min(self.memory, count / (count + 1)))
        self.updates += 1
