"""Masks from attention: the fewest patches that hold a share of it (DINO, Caron et al. 2021, arXiv:2104.14294, figures
1 and 4: 60% of the mass of each head of the last layer)."""

import torch
from torch import Tensor

__all__ = ["attention_masks"]


def attention_masks(attention: Tensor, mass: float = 0.6) -> Tensor:
    """Attention (..., H, W), 0 or more, to bool (..., H, W): of each map the patches with the largest values, as few as
    have `mass` of its sum together. A map without any attention gives an empty mask."""
    flat = attention.flatten(-2).double()
    values, order = flat.sort(dim=-1, descending=True, stable=True)
    before = values.cumsum(-1) - values
    kept = (before < mass * flat.sum(-1, keepdim=True)) & (values > 0)
    return torch.zeros_like(kept).scatter_(-1, order, kept).view(attention.shape)
