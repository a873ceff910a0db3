"""What the first layer of a network responds to (Dosovitskiy et al. 2021, arXiv:2010.11929, figure 7, left)."""

import torch
from torch import Tensor, nn

from mirada.backbones.stems import DeepStem
from mirada.features import Backbone

__all__ = ["filter_components", "patch_filters"]


@torch.no_grad()
def patch_filters(backbone: Backbone) -> Tensor:
    """The filters (E, C, height, width) that read the pixels: a transformer's patch embedding, or the first
    convolution of anything else."""
    stem = getattr(backbone, "stem", None)
    if isinstance(stem, DeepStem):
        return stem.get_buffer("whitening").detach().clone()
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    return first.weight.detach().clone()


@torch.no_grad()
def filter_components(backbone: Backbone, count: int = 28) -> Tensor:
    """The first `count` principal components of the filters, (count, C, height, width), of length 1, strongest first;
    fewer where there are no more. Of each, the value that is largest in size is positive."""
    filters = patch_filters(backbone).float()
    _, _, components = torch.linalg.svd(filters.flatten(1), full_matrices=False)
    components = components[:count]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    signed: Tensor = components * largest.sign()
    return signed.view(-1, *filters.shape[1:])
