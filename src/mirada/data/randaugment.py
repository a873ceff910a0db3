"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719) on batches of pixels: the paper's fourteen operations, each applied
to the images that drew it, with magnitudes in 0..10 mapped to the ranges of AutoAugment (arXiv:1805.09501, table 6)."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = ["OPERATIONS", "randaugment"]


def randaugment(pixels: Tensor, operations: int, magnitude: float, generator: Generator) -> Tensor:
    """Apply `operations` random operations, one after another, to each image of float pixels (B, 3, H, W) in 0..255."""
    for _ in range(operations):
        drawn = torch.randint(len(OPERATIONS), (len(pixels),), generator=generator)
        sign = torch.randint(2, (len(pixels),), generator=generator) * 2.0 - 1
        changed = pixels.clone()
        for number, operation in enumerate(OPERATIONS.values()):
            chosen = (drawn == number).nonzero()[:, 0]
            if len(chosen):
                strength = (sign[chosen] * magnitude / 10).to(pixels.device)
                chosen = chosen.to(pixels.device)
                changed[chosen] = operation(pixels[chosen], strength)
        pixels = changed
    return pixels


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _affine(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Warp by matrices (B, 2, 3) that map output to input coordinates in [-1, 1]; grey where there was no image."""
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels - 128, grid, align_corners=False) + 128


def _matrix(count: int, like: Tensor, entries: dict[tuple[int, int], Tensor]) -> Tensor:
    matrix = torch.eye(2, 3, device=like.device).repeat(count, 1, 1)
    for (row, column), value in entries.items():
        matrix[:, row, column] = value
    return matrix


def _rotate(pixels: Tensor, strength: Tensor) -> Tensor:
    angle = strength * math.radians(30)
    cos, sin = angle.cos(), angle.sin()
    ratio = pixels.shape[-1] / pixels.shape[-2]
    entries = {(0, 0): cos, (0, 1): -sin / ratio, (1, 0): sin * ratio, (1, 1): cos}
    return _affine(pixels, _matrix(len(pixels), pixels, entries))


def _warp(row: int, column: int, reach: float) -> Callable[[Tensor, Tensor], Tensor]:
    def operation(pixels: Tensor, strength: Tensor) -> Tensor:
        return _affine(pixels, _matrix(len(pixels), pixels, {(row, column): strength * reach}))

    return operation


def _grey(pixels: Tensor) -> Tensor:
    """Luma as in ITU-R 601, (B, 1, H, W)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device)[:, None, None]
    return (pixels * weights).sum(1, keepdim=True)


def _blend(base: Tensor, pixels: Tensor, strength: Tensor) -> Tensor:
    """From `base` (factor 0) over the image (factor 1) to an exaggeration (up to 1.9)."""
    return (base + (pixels - base) * _column(1 + 0.9 * strength)).clamp(0, 255)


def _sharpness(pixels: Tensor, strength: Tensor) -> Tensor:
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=pixels.device).expand(3, 1, 3, 3) / 13
    smooth = F.conv2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    return _blend(smooth, pixels, strength)


def _autocontrast(pixels: Tensor, _strength: Tensor) -> Tensor:
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    flat = high - low < 1
    return torch.where(flat, pixels, (pixels - low) * 255 / (high - low).clamp(min=1))


def _equalise(pixels: Tensor, _strength: Tensor) -> Tensor:
    """Replace each value by its rank within its channel, so that all values are used equally often."""
    values = pixels.flatten(2).round().clamp(0, 255).long()
    histogram = torch.zeros(*values.shape[:2], 256, device=pixels.device).scatter_add_(
        2, values, torch.ones_like(values, dtype=torch.float32)
    )
    cumulative = histogram.cumsum(2)
    first = cumulative.gather(2, values.amin(2, keepdim=True))
    total = cumulative[:, :, -1:]
    table = ((cumulative - first) * 255 / (total - first).clamp(min=1)).clamp(0, 255)
    equalised = table.gather(2, values).view_as(pixels)
    return torch.where((total > first)[..., None], equalised, pixels)


def _posterise(pixels: Tensor, strength: Tensor) -> Tensor:
    step = _column(2 ** (4 * strength.abs()).round())
    return (pixels / step).floor() * step


def _solarise(pixels: Tensor, strength: Tensor) -> Tensor:
    return torch.where(pixels >= _column(256 * (1 - strength.abs())), 255 - pixels, pixels)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda pixels, _strength: pixels,
    "autocontrast": _autocontrast,
    "equalise": _equalise,
    "rotate": _rotate,
    "solarise": _solarise,
    "posterise": _posterise,
    "colour": lambda pixels, strength: _blend(_grey(pixels), pixels, strength),
    "contrast": lambda pixels, strength: _blend(_grey(pixels).mean((2, 3), keepdim=True), pixels, strength),
    "brightness": lambda pixels, strength: _blend(torch.zeros_like(pixels), pixels, strength),
    "sharpness": _sharpness,
    "shear_x": _warp(0, 1, 0.3),
    "shear_y": _warp(1, 0, 0.3),
    "translate_x": _warp(0, 2, 0.9),
    "translate_y": _warp(1, 2, 0.9),
}
