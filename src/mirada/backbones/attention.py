"""softmax(q k^T / sqrt(d)) v by whichever kernel is fast."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attend"]

MOST_SCORES = 2**26  # entries of all attention matrices of a layer that training may keep: 128 MB in bfloat16
MOST_PASSING = 2**24  # the same where none are kept: larger ones come anew from the system at each layer, page by page


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, heads, N, d) from queries of that shape, and keys and values (B, heads, M, d); `bias` (heads, N, M) is added
    to the scores.

    PyTorch's fused kernel, except on a CPU in bfloat16, where it is slow, most of all its backward pass: there plain
    products run, 1.4 to 6 times as fast on pictures' usual numbers of tokens (docs/numbers/attention.md). They keep
    the matrices for the backward pass, so where those are large the fused kernel runs after all.
    """
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16
    most = MOST_SCORES if query.requires_grad else MOST_PASSING
    if not slow or query.shape[:3].numel() * key.shape[2] > most:
        return F.scaled_dot_product_attention(query, key, value, None if bias is None else bias[None])
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    attention: Tensor = (scores if bias is None else scores + bias).softmax(-1)
    return attention @ value
