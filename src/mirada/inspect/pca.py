"""Patch features as colours: their first three principal components as red, green and blue (Oquab et al. 2023, DINOv2,
arXiv:2304.07193, figure 1 and section 7.6)."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Colours", "patch_colours", "patch_pca"]


class Colours(NamedTuple):
    """An image's patches, the object apart from what is around it."""

    colours: Tensor  # (B, H, W, 3) in [0, 1]; 0 where the object is not
    foreground: Tensor  # (B, H, W) bool


@torch.no_grad()
def patch_pca(patches: Tensor) -> Tensor:
    """Patch features (B, H, W, D) to colours (B, H, W, 3) in [0, 1], each image by itself, each component stretched to
    its range; a component without spread is 0.5.

    For components that several images of one size share, give them as one tall image: `patches.flatten(0, 1)[None]`.
    The sign of a component is fixed by its largest value being positive.
    """
    batch, height, width, _ = patches.shape
    tokens = patches.flatten(1, 2).float()
    return torch.stack([stretched(components(image, 3)) for image in tokens]).view(batch, height, width, 3)


@torch.no_grad()
def patch_colours(patches: Tensor) -> Colours:
    """As DINOv2 shows it: the first component splits the patches (B, H, W, D) in two at the middle of its range, and
    the side that has less of the image's border is taken for the object, whose patches alone are then coloured by three
    components of their own."""
    batch, height, width, _ = patches.shape
    border = torch.ones(height, width, dtype=torch.bool, device=patches.device)
    border[1:-1, 1:-1] = False
    colours = torch.zeros(batch, height * width, 3, device=patches.device)
    masks = torch.zeros(batch, height * width, dtype=torch.bool, device=patches.device)
    for number, image in enumerate(patches.flatten(1, 2).float()):
        high = stretched(components(image, 1))[:, 0] > 0.5
        around = border.flatten()
        mask = high if high[around].float().mean() <= (~high)[around].float().mean() else ~high
        masks[number] = mask
        if bool(mask.any()):
            colours[number, mask] = stretched(components(image[mask], 3))
    return Colours(colours.view(batch, height, width, 3), masks.view(batch, height, width))


def components(tokens: Tensor, count: int) -> Tensor:
    """(N, D) to its first principal components (N, count); zeros for those that there are not."""
    centred = tokens - tokens.mean(0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    there = sizes > 1e-6 * max(1.0, float(tokens.abs().max())) * len(tokens) ** 0.5
    scores = torch.where(there, left * sizes, 0.0)[:, :count]
    largest = scores.gather(0, scores.abs().argmax(0, keepdim=True))
    scores = scores * torch.where(largest < 0, -1.0, 1.0)
    return torch.nn.functional.pad(scores, (0, count - scores.shape[1]))


def stretched(scores: Tensor) -> Tensor:
    """Each column from 0 to 1; 0.5 where all of it is equal."""
    low, high = scores.amin(0), scores.amax(0)
    spread = high - low
    return torch.where(spread > 0, (scores - low) / spread.clamp(min=1e-30), 0.5)
