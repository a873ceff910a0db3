"""Mahalanobis distance to the normal images, with a covariance shrunk as Ledoit and Wolf (2004) do, so that there may
be fewer images than features."""

from typing import NamedTuple

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

__all__ = ["Gaussian", "fit", "leave_one_out", "mahalanobis"]

LEAST = 1e-10  # of the largest variance: a smaller one is rounding


class Gaussian(NamedTuple):
    """Of N normal rows (N, D); all float64. Covariance = (1 - shrinkage) * scatter / N + shrinkage * variance * I."""

    mean: Tensor  # (D,)
    axes: Tensor  # (D, D) a principal axis in each column
    variances: Tensor  # (D,) along them, not shrunk, of the rows themselves
    shrinkage: float  # in [0, 1]
    variance: float  # the mean of `variances`


def fit(normal: Tensor) -> Gaussian:
    """Of rows (N, D), two at least."""
    rows = normal.double()
    mean = rows.mean(0)
    centred = rows - mean
    shrinkage = float(ledoit_wolf(centred.numpy(), assume_centered=True)[1])
    if len(rows) <= rows.shape[1]:  # of two rows theirs is 0, and all other directions would count without end
        shrinkage = max(shrinkage, 1 / len(rows))
    variances, axes = torch.linalg.eigh(centred.mT @ centred / len(rows))
    variances = variances.clamp(min=0)
    return Gaussian(mean, axes, variances, shrinkage, float(variances.mean()))


def mahalanobis(gaussian: Gaussian, asked: Tensor) -> Tensor:
    """Distances of rows (M, D) from the mean, in standard deviations: float64 (M,)."""
    return _squares(gaussian, asked.double() - gaussian.mean, 1.0).sqrt()


def leave_one_out(gaussian: Gaussian, normal: Tensor) -> Tensor:
    """`mahalanobis` of each row that the Gaussian was fitted to (N, D), from one fitted to the others with the same
    shrinkage: float64 (N,).

    Without row x, at d from the mean, the mean moves by -d / (N - 1), and the scatter over N - 1 becomes
    N / (N - 1) * (covariance - d d' / (N - 1)); the formula of Sherman and Morrison inverts that.
    """
    count = len(normal)
    grown = count / (count - 1)
    square = _squares(gaussian, normal.double() - gaussian.mean, grown)
    removed = (1 - gaussian.shrinkage) * grown / (count - 1)
    return grown * (square / (1 - removed * square).clamp(min=1e-12)).sqrt()


def _squares(gaussian: Gaussian, away: Tensor, grown: float) -> Tensor:
    """Squared distances of rows (M, D) from zero, where the rows' own covariance is `grown` times as large."""
    own = (1 - gaussian.shrinkage) * grown * gaussian.variances
    shrunk = own + gaussian.shrinkage * gaussian.variance
    least = max(LEAST * float(shrunk.max()), torch.finfo(torch.float64).tiny)
    squares: Tensor = ((away @ gaussian.axes) ** 2 / shrunk.clamp(min=least)).sum(1)
    return squares
