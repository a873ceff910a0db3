"""What keeps features apart or in place while another loss shapes them: KoLeo and Gram anchoring."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["gram", "koleo"]


def koleo(features: Tensor) -> Tensor:
    """The Kozachenko-Leonenko entropy estimator as a loss (Sablayrolles et al. 2018, arXiv:1806.03198, equation 2):
    minus the mean log distance of unit vectors (B, D) to their nearest neighbours in the batch, which spreads them."""
    unit = F.normalize(features, dim=1)
    with torch.autocast(unit.device.type, enabled=False):
        nearest = (unit @ unit.mT).detach().fill_diagonal_(-2).argmax(1)
    distance = F.pairwise_distance(unit, unit[nearest], eps=1e-8)
    return -(distance + 1e-8).log().mean()


def gram(patches: Tensor, anchor: Tensor) -> Tensor:
    """Gram anchoring (Siméoni et al. 2025, arXiv:2508.10104): patch features (B, N, D) keep the similarities
    among each other that they had in an earlier teacher. The squared Frobenius norm, over the N * N pairs."""
    ours, theirs = F.normalize(patches, dim=-1), F.normalize(anchor, dim=-1)
    with torch.autocast(ours.device.type, enabled=False):
        return F.mse_loss(ours @ ours.mT, theirs @ theirs.mT)
