"""PatchCore (Roth et al. 2021, arXiv:2106.08265): an image is as unusual as its most unusual patch, and a patch as its
distance to the nearest of a coreset of all patches of the normal images."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.anomalies.coreset import nearest
from mirada.errors import MiradaError
from mirada.model import Model

__all__ = ["MEMORY", "Memory", "heat_maps", "memory_size", "patch_features", "patch_scores"]

LEAST, MEMORY = 1024, 8192  # rows of a coreset
SHARE = 0.1  # of all patches, the paper's middle one
AROUND = 3  # patches on a side that are averaged: the paper's p
NEIGHBOURS = 9  # the paper's b


class Memory(NamedTuple):
    """Normal patches."""

    rows: Tensor  # (n, D) float32
    origins: Tensor  # (n,) the image that each is from


def memory_size(patches: int) -> int:
    """How many rows stand for so many patches: a tenth, but `LEAST` to `MEMORY`."""
    return min(MEMORY, max(LEAST, round(SHARE * patches)))


@torch.no_grad()
def patch_features(model: Model, images: Tensor) -> Tensor:
    """Float32 (B, H, W, D) of prepared images, each the mean over a patch and its neighbours (section 3.1).

    Raises `MiradaError` for a model that sees an image as one patch only.
    """
    patches = model.backbone(images.to(model.device, next(model.parameters()).dtype)).patches.float().cpu()
    if patches.shape[1] * patches.shape[2] < 2:
        raise MiradaError(f"The model {model.architecture!r} has no grid of patches for images of this size: use the "
                          "method knn or mahalanobis, or a model with smaller patches.")  # fmt: skip
    channels = patches.permute(0, 3, 1, 2)
    mean = F.avg_pool2d(channels, AROUND, 1, AROUND // 2, count_include_pad=False)
    return mean.permute(0, 2, 3, 1)


def patch_scores(memory: Memory, patches: Tensor, own: int = -1) -> tuple[float, Tensor]:
    """How unusual an image of patches (H, W, D) is, and each of its patches: distances (H, W).

    That of the image is that of its most unusual patch m, with m* nearest to it in the memory, times 1 - exp|m - m*| /
    sum of exp|m - n| over the `NEIGHBOURS` rows n nearest to m*, itself among them (equation 7): what lies among few
    normal patches is more unusual. Rows from the image `own` do not count, so that a normal image can be scored as if
    it had been left out.
    """
    known = memory.rows if own < 0 else memory.rows[memory.origins != own]
    if not len(known):
        raise MiradaError("All normal patches that were kept are of one image: add more normal images.")
    rows = patches.flatten(0, 1)
    distances, places = nearest(rows, known)
    worst = int(distances.argmax())
    around = nearest(known[places[worst]][None], known, min(NEIGHBOURS, len(known)))[1].flatten()
    away = torch.linalg.vector_norm(known[around] - rows[worst], dim=1)
    own_share = (distances[worst] - away.logsumexp(0)).exp() if len(around) > 1 else torch.zeros(())
    weight = 1 - min(1.0, float(own_share))
    return weight * float(distances[worst]), distances.view(patches.shape[:2])


def heat_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of patches (B, H, W) as maps of pixels (B, *size): interpolated, then blurred by half a patch, which are the
    paper's 4 pixels at its patches of 8."""
    pixels = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)
    for axis, (side, patches) in enumerate(zip(size, maps.shape[1:], strict=True)):
        sigma = side / patches / 2
        reach = min(round(3 * sigma), side - 1)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
        shape = (1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1)
        padding = (0, 0, reach, reach) if axis == 0 else (reach, reach, 0, 0)
        pixels = F.conv2d(F.pad(pixels, padding, "reflect"), (kernel / kernel.sum()).view(shape))
    return pixels[:, 0]
