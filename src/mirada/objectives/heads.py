"""Projection heads: what self-supervised objectives put between the image feature and their loss."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DistillationHead", "Prototypes", "projector"]


def projector(dim: int, hidden: int, out: int, layers: int = 2, *, norm: bool = False) -> nn.Sequential:
    """An MLP of `layers` linear layers (B, dim) to (B, out), with GELU between them.

    `norm` puts BatchNorm before each GELU and drops the bias that it makes useless, as SimCLR and SwAV do; DINO leaves
    it out, so that images of a batch do not see each other.
    """
    widths = [dim, *[hidden] * (layers - 1), out]
    parts: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        last = number == layers - 1
        linear = nn.Linear(before, after, bias=last or not norm)
        nn.init.trunc_normal_(linear.weight, std=0.02 if not norm else before**-0.5)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
        parts += [linear] if last else [linear, *([nn.BatchNorm1d(after)] if norm else []), nn.GELU()]
    return nn.Sequential(*parts)


class Prototypes(nn.Module):
    """Cosine similarity to K learned directions: (B, dim) to (B, K) in [-1, 1].

    Rows of `weight` are used at unit length, which is weight normalisation (Salimans and Kingma 2016,
    arXiv:1602.07868) with its gain fixed at one, as DINO's last layer and SwAV's prototypes have it.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim))
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """`frozen` keeps the directions where they are, by a gradient of zero. In float32 whatever the autocast: these
        scores are divided by small temperatures."""
        weight = self.weight.detach() + 0 * self.weight if frozen else self.weight
        with torch.autocast(x.device.type, enabled=False):
            return F.normalize(x.float(), dim=-1) @ F.normalize(weight.float(), dim=-1).mT


class DistillationHead(nn.Module):
    """DINO's head: an MLP of three layers into a bottleneck, then cosine similarity to K prototypes."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.layers = projector(dim, hidden, bottleneck, layers=3)
        self.prototypes = Prototypes(bottleneck, prototypes)

    def forward(self, features: Tensor, frozen: bool = False) -> Tensor:
        scores: Tensor = self.prototypes(self.layers(features), frozen)
        return scores
