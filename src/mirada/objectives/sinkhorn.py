"""Balanced assignment (Cuturi 2013, arXiv:1306.0895): every prototype gets the same share of a batch."""

import torch
from torch import Tensor

from mirada.processes import largest, summed

__all__ = ["sinkhorn"]


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, rounds: int = 3) -> Tensor:
    """Scores (B, K) to assignments (B, K), float32: rows sum to 1, and columns sum to nearly B / K.

    Alternately normalises columns and rows of exp(scores / epsilon), over the images of all processes: SwAV's algorithm
    (Caron et al. 2020, arXiv:2006.09882, appendix A.1), which DINOv2 uses in place of centring (arXiv:2304.07193).
    Computed on logarithms, where no temperature overflows.
    """
    logits = scores.float() / epsilon
    for _ in range(rounds):
        logits = logits - _log_sum_over_batch(logits)
        logits = logits.log_softmax(1)
    return logits.exp()


def _log_sum_over_batch(logits: Tensor) -> Tensor:
    """log of the sum of exp over the images of all processes, (1, K)."""
    whole = largest(logits.amax(0, keepdim=True))
    return whole + summed((logits - whole).exp().sum(0, keepdim=True)).log()
