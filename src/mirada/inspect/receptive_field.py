"""How far a place of a feature map really sees: the effective receptive field (Luo et al. 2016, arXiv:1701.04128).

It answers for convolutions what the attention distance answers for attention, and for anything that has a gradient, so
it compares a CoAtNet's stages, a ResNet and a transformer in pixels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mirada.errors import MiradaError
from mirada.features import Backbone, Layer
from mirada.modes import evaluating

__all__ = ["ReceptiveField", "receptive_field"]


class ReceptiveField(NamedTuple):
    """What the middle of one feature map sees."""

    name: str  # of the map: "convolutions 1", ..., "attention 1", ... or "end"
    grid: tuple[int, int]
    weight: Tensor  # (height, width), sums to 1: how much each pixel changes the middle place
    distance: float  # pixels from the middle to what it sees, in the mean over `weight`


def receptive_field(backbone: Backbone, images: Tensor, *, batch: int = 8) -> list[ReceptiveField]:
    """One for each resolution of the convolutions, for each attention layer, and for the final patches.

    The middle place's channels are summed with random signs, the same ones each time (after a LayerNorm their plain sum
    never changes); the gradient at each pixel, in size, is averaged over channels and images. More images make a
    smoother field. The modes and gradients of the backbone are left as they were.

    Args:
        images: normalised, (B, C, height, width).
    """
    if not len(images):
        raise MiradaError("There are no images: give at least one.")
    weights: dict[str, Tensor] = {}
    grids: dict[str, tuple[int, int]] = {}
    with evaluating(backbone), torch.enable_grad():
        for part in torch.split(images, batch):
            pixels = part.detach().clone().requires_grad_()
            for name, (patches, grid) in feature_maps(backbone, pixels).items():
                middle = patches[:, (grid[0] // 2) * grid[1] + grid[1] // 2]
                signs = torch.randint(2, middle.shape, generator=torch.Generator().manual_seed(0)).to(middle) * 2 - 1
                (gradient,) = torch.autograd.grad((signs * middle).sum(), pixels, retain_graph=True)
                found = gradient.float().abs().mean(1).sum(0)
                weights[name] = weights.get(name, torch.zeros_like(found)) + found
                grids[name] = grid
    fields = []
    for name, weight in weights.items():
        share = weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
        fields.append(ReceptiveField(name, grids[name], share, mean_distance(share, grids[name])))
    return fields


def mean_distance(weight: Tensor, grid: tuple[int, int]) -> float:
    """Pixels from the middle place of a grid to all pixels, averaged with `weight` (height, width), which sums to 1."""
    height, width = weight.shape
    tall, wide = height / grid[0], width / grid[1]
    y = torch.arange(height, device=weight.device) + 0.5 - (grid[0] // 2 + 0.5) * tall
    x = torch.arange(width, device=weight.device) + 0.5 - (grid[1] // 2 + 0.5) * wide
    distance = float((weight * torch.hypot(y[:, None], x)).sum())
    return distance if math.isfinite(distance) else 0.0


def feature_maps(backbone: Backbone, pixels: Tensor) -> dict[str, tuple[Tensor, tuple[int, int]]]:
    """Name to patches (B, H * W, D) and their grid."""
    maps: dict[str, tuple[Tensor, tuple[int, int]]] = {}
    patches = backbone.embed(pixels)
    blocks = convolutions(backbone)
    if blocks is not None:
        x, last = patches.permute(0, 3, 1, 2), 0
        outputs = [x := block(x) for block in blocks]
        for number, output in enumerate(outputs):
            following = outputs[number + 1].shape[-2:] if number + 1 < len(outputs) else None
            if output.shape[-2:] != following:
                last += 1
                grid = (output.shape[-2], output.shape[-1])
                maps[f"convolutions {last}"] = (output.flatten(2).mT, grid)
    kept: list[Layer] = []
    end = backbone.encode(patches, probe=kept.append).patches
    for layer in kept:
        maps[f"attention {layer.index + 1}"] = (layer.tokens[:, layer.prefix :], layer.grid)
    if kept or blocks is None:
        maps["end"] = (end.flatten(1, 2), (end.shape[1], end.shape[2]))
    return maps


def convolutions(backbone: Backbone) -> nn.Sequential | None:
    """The convolutional blocks, (B, C, h, w) to the same; None in a network that has none."""
    parts = (getattr(backbone, name, None) for name in ("convolutions", "blocks"))
    return next((part for part in parts if isinstance(part, nn.Sequential)), None)
