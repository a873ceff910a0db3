"""Distance to the nearest normal images (Bergman et al. 2020, arXiv:2002.10445; with cosines and two neighbours, as in
Reiss & Hoshen 2021, arXiv:2106.03844)."""

import torch
from torch import Tensor

__all__ = ["NEIGHBOURS", "leave_one_out", "neighbour_scores"]

NEIGHBOURS = 2
AT_ONCE = 1 << 24  # distances held at a time


def neighbour_scores(normal: Tensor, asked: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Mean of 1 - cosine, in [0, 2], between each of `asked` (M, D) and the nearest of `normal` (N, D): float64 (M,).

    With fewer normal rows than neighbours, all of them count.
    """
    return _scores(normal, asked, neighbours, same=False)


def leave_one_out(normal: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """`neighbour_scores` of each normal row (N, D) among the others, of which there is one at least: float64 (N,)."""
    return _scores(normal, normal, neighbours, same=True)


def _scores(normal: Tensor, asked: Tensor, neighbours: int, same: bool) -> Tensor:
    """1 - cosine is half the squared distance of unit vectors. In float64, because an untrained network's features lie
    so close together that a float32 cosine cannot tell them apart."""
    normal, asked = (torch.nn.functional.normalize(rows.double(), dim=1) for rows in (normal, asked))
    count = min(neighbours, len(normal) - same)
    scores, start = [], 0
    for part in torch.split(asked, max(1, AT_ONCE // len(normal))):
        distances = (1 - part @ normal.mT).clamp_(min=0)
        if same:
            rows = torch.arange(len(part))
            distances[rows, start + rows] = torch.inf
        scores.append(distances.topk(count, 1, largest=False).values.mean(1))
        start += len(part)
    return torch.cat(scores) if scores else torch.empty(0, dtype=torch.float64)
