"""Edges of a mask moved to edges of the image: the guided filter (He et al. 2013, doi:10.1109/TPAMI.2012.213)."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["refine"]


def refine(mask: Tensor, image: Tensor, radius: int = 8, epsilon: float = 1e-3) -> Tensor:
    """A mask or score (height, width) in [0, 1], filtered along the colours of an image (3, height, width) in [0, 1]:
    float32 (height, width) in [0, 1], to be cut at 0.5.

    In each window of 2 `radius` + 1 pixels the mask is fitted by a linear function of red, green and blue (equations 14
    to 16); each pixel gets the mean of the functions of the windows that it is in. The larger `epsilon`, the larger
    contrasts of colour are smoothed over. A radius of about half a patch to one patch suits masks of patches.
    """
    colours, target = image.double(), mask.double()
    around = _means(torch.cat([colours, target[None], colours * target, _products(colours)]), radius)
    mean, average, crossed, squared = torch.split(around, [3, 1, 3, 9])
    covariance = (squared - _products(mean)).view(3, 3, *mask.shape)
    slope = _solved(covariance + epsilon * torch.eye(3).to(covariance)[..., None, None], crossed - mean * average)
    offset = average[0] - (slope * mean).sum(0)
    fitted = _means(torch.cat([slope, offset[None]]), radius)
    return ((fitted[:3] * colours).sum(0) + fitted[3]).clamp(0, 1).float()


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """x (3, H, W) of A x = b for symmetric A (3, 3, H, W), by Cramer's rule."""
    first, second, third = matrix
    adjugate = torch.stack([torch.linalg.cross(one, other, dim=0)
                            for one, other in ((second, third), (third, first), (first, second))])  # fmt: skip
    solution: Tensor = (adjugate * right).sum(1) / (first * adjugate[0]).sum(0)
    return solution


def _products(colours: Tensor) -> Tensor:
    return (colours[:, None] * colours).flatten(0, 1)


def _means(maps: Tensor, radius: int) -> Tensor:
    """Of each window, of as much of it as is inside; columns first, then rows, which is less work."""
    side = 2 * radius + 1
    columns = F.avg_pool2d(maps, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(columns, (1, side), 1, (0, radius), count_include_pad=False)
