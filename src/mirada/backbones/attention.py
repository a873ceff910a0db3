"""softmax(q k^T / sqrt(d)) v by whichever kernel is fast."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attend"]

MOST_SCORES = 2**26  # entries of all attention matrices of a layer that training may keep: 128 MB in bfloat16


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, heads, N, d) from queries of that shape, and keys and values (B, heads, M, d); `bias` (heads, N, M) is added
    to the scores.

    PyTorch's fused kernel, except when training on a CPU in bfloat16, where its backward pass is slow: plain products
    took 7 ms instead of 43 (64 images, 3 heads of 65 tokens), 18 instead of 56 (32 of 197) and 56 instead of 124 (4
    images, 6 heads of 785), forward and backward on one core of an AMD EPYC 9005 with PyTorch 2.13. They keep the
    matrices for the backward pass, so where those are large the fused kernel runs after all.
    """
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad
    if not slow or query.shape[:3].numel() * key.shape[2] > MOST_SCORES:
        return F.scaled_dot_product_attention(query, key, value, None if bias is None else bias[None])
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    attention: Tensor = (scores if bias is None else scores + bias).softmax(-1)
    return attention @ value
