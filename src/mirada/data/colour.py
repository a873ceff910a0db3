"""Colour distortion of whole batches: what makes two crops of one image look different to self-supervision."""

import math

import torch
from torch import Generator, Tensor

__all__ = ["Jitter", "blur", "distort_colours", "solarise"]

Jitter = tuple[float, float, float, float]  # largest change of brightness, contrast, saturation and hue

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def distort_colours(
    pixels: Tensor, jitter: Jitter | None, chance: float, grey: float, generator: Generator
) -> Tensor:  # fmt: skip
    """Brightness, contrast, saturation and hue of float pixels (B, 3, H, W) in 0..255, changed as SimCLR does (Chen et
    al. 2020, arXiv:2002.05709, appendix A), then some images made grey.

    Factors are drawn from [1 - j, 1 + j] and the turn of the hue from [-j, j] of the circle; the four come in a random
    order, one for each batch, to a share `chance` of its images. All of them are linear in an image's colours and its
    mean colour, so an image takes one matrix product, and is clamped once, at the end. Hue turns in the plane of YIQ.
    """
    count, device = len(pixels), pixels.device
    matrix, offset = torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 3, 1)
    mean = pixels.mean((2, 3)).float().cpu()[:, :, None]
    luma = torch.tensor(LUMA)
    if jitter is not None:
        applied = torch.rand(count, generator=generator) < chance
        draws = 2 * torch.rand(4, count, generator=generator) - 1
        for kind in torch.randperm(4, generator=generator).tolist():
            change = torch.where(applied, draws[kind] * jitter[kind], 0.0)[:, None, None]
            factor = (1 + change).clamp(min=0)
            if kind == 0:
                matrix, offset = factor * matrix, factor * offset
            elif kind == 1:
                middle = (luma @ (matrix @ mean + offset))[:, None]
                matrix, offset = factor * matrix, factor * offset + (1 - factor) * middle
            else:
                step = _saturation(factor, luma) if kind == 2 else _hue(change[:, 0, 0])
                matrix, offset = step @ matrix, step @ offset
    if grey:
        kept = (torch.rand(count, generator=generator) >= grey).float()[:, None, None]
        step = _saturation(kept, luma)
        matrix, offset = step @ matrix, step @ offset
    changed = torch.baddbmm(offset.to(device), matrix.to(device), pixels.flatten(2))
    return changed.clamp_(0, 255).view_as(pixels)


def blur(pixels: Tensor, chance: float, generator: Generator, sigma: tuple[float, float] = (0.1, 2.0)) -> Tensor:
    """A Gaussian blur of a share `chance` of the images, each with a deviation in pixels drawn from `sigma`; at the
    edges the kernel's rest is scaled up."""
    drawn = torch.rand(len(pixels), generator=generator) < chance
    deviations = sigma[0] + (sigma[1] - sigma[0]) * torch.rand(len(pixels), generator=generator)
    chosen = drawn.nonzero()[:, 0]
    if len(chosen):
        deviation = deviations[chosen].to(pixels.device)[:, None, None, None]
        chosen = chosen.to(pixels.device)
        rows, columns = (_gaussian(side, deviation) for side in pixels.shape[2:])
        pixels = pixels.clone()
        pixels[chosen] = rows @ pixels[chosen] @ columns.mT
    return pixels


def solarise(pixels: Tensor, chance: float, generator: Generator) -> Tensor:
    """Invert what is brighter than the middle, in a share `chance` of the images."""
    drawn = (torch.rand(len(pixels), generator=generator) < chance).to(pixels.device)[:, None, None, None]
    return torch.where(drawn & (pixels >= 128), 255 - pixels, pixels)


def _saturation(factor: Tensor, luma: Tensor) -> Tensor:
    """Matrices (B, 3, 3) between grey (factor 0) and the colour itself (1)."""
    mixed: Tensor = factor * torch.eye(3) + (1 - factor) * luma.expand(3, 3)
    return mixed


def _hue(turn: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that turn hues by shares of a circle (B,)."""
    angle = 2 * math.pi * turn
    rotation = torch.eye(3).repeat(len(turn), 1, 1)
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    basis = torch.tensor(YIQ)
    turned: Tensor = torch.linalg.inv(basis) @ rotation @ basis
    return turned


def _gaussian(side: int, deviation: Tensor) -> Tensor:
    """Weights (B, 1, side, side) of a blur along one axis."""
    places = torch.arange(side, device=deviation.device, dtype=torch.float32)
    weights = (-((places[:, None] - places) ** 2) / (2 * deviation**2)).exp()
    return weights / weights.sum(-1, keepdim=True)
