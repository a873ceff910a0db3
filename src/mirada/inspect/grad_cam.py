"""Grad-CAM on patches, of any backbone (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2)."""

import torch
from torch import Tensor

from mirada.features import Layer
from mirada.inspect.target import Target, score
from mirada.model import Model
from mirada.modes import evaluating

__all__ = ["grad_cam"]


def grad_cam(model: Model, images: Tensor, target: Target | None = None) -> Tensor:
    """(B, H, W), 0 or more: where normalised images (B, 3, height, width) speak for `target`: the name or number of a
    class, a text's unit vector, any function of the features, or by default the class that the model finds.

    Channels are weighted by the mean over the patches of their gradient, summed, and what speaks against the target is
    cut off. In a convolutional network they are those of its last layer; in a transformer, where patches no longer
    matter to a class token after the last block, those before that block, be it the first. No weight gets a gradient.
    Raises `MiradaError` for a target that the model does not know.
    """
    kept: list[Layer] = []
    with evaluating(model), torch.enable_grad():
        pixels = model.prepare(images).detach().requires_grad_()
        embedded = model.backbone.embed(pixels)
        features = model.backbone.encode(embedded, probe=kept.append)
        total = score(model, features, target).sum()
        same = [layer for layer in kept if layer.grid == kept[-1].grid]
        patches = same[-2].tokens if len(same) > 1 else embedded if len(kept) == 1 else features.patches
        (gradient,) = torch.autograd.grad(total, patches)
    if len(same) > 1:
        layer = same[-2]
        shape = (len(pixels), *layer.grid, -1)
        patches, gradient = (tensor[:, layer.prefix :].reshape(shape) for tensor in (patches, gradient))
    weights = gradient.float().mean((1, 2), keepdim=True)  # (B, 1, 1, D)
    return (weights * patches.detach().float()).sum(-1).clamp(min=0)
