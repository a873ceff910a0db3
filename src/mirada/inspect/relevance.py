"""Gradient-weighted rollout: which patches speak for a class or a text, through all layers (Chefer, Gur and Wolf 2021,
arXiv:2103.15679, equations 5 and 6).

The fused kernel keeps no attention matrix, and so no gradient of one. It need not: attended = attention @ value, so the
gradient of the attention is (gradient of attended) @ value^T, and both of these are there. Nor is the product over
layers (equation 6) formed: of it one row is wanted, which is followed from the last layer to the first.
"""

import torch
from torch import Tensor

from mirada.features import Layer
from mirada.inspect.attention import has_class_token, pieces, require_attention
from mirada.inspect.target import Target, score
from mirada.model import Model
from mirada.modes import evaluating

__all__ = ["relevance"]


def relevance(model: Model, images: Tensor, target: Target | None = None) -> Tensor:
    """(B, H, W), 0 or more: how much each patch of normalised images (B, 3, height, width) says for `target`: the name
    or number of a class, a text's unit vector, any function of the features, or by default the class that the model
    finds.

    The row of the class token, or the mean over the patches' rows where the model pools those. Where the grid changes
    (CoAtNet) it is that of the layers on the last grid. No weight gets a gradient. Raises `MiradaError` for a backbone
    without attention, and for a target that the model does not know.
    """
    kept: list[Layer] = []
    with evaluating(model), torch.enable_grad():
        pixels = model.prepare(images).detach().requires_grad_()
        features = model.backbone(pixels, probe=kept.append)
        require_attention(model.backbone, len(kept))
        total = score(model, features, target).sum()
        attended = [layer.attended for layer in kept]
        gradients = torch.autograd.grad(total, attended, allow_unused=True)  # type: ignore[arg-type]
    last = kept[-1]
    row = torch.zeros(last.tokens.shape[:2], device=last.tokens.device)
    if has_class_token(model.backbone):
        row[:, 0] = 1
    else:
        row[:, last.prefix :] = 1 / (last.grid[0] * last.grid[1])
    for layer, gradient in zip(reversed(kept), reversed(gradients), strict=True):
        if layer.grid != last.grid:
            break
        if gradient is not None:  # else nothing after this layer reads it
            row = row + passed_on(layer, gradient, row)
    return row[:, last.prefix :].view(len(row), *last.grid)


@torch.no_grad()
def passed_on(layer: Layer, gradient: Tensor, row: Tensor) -> Tensor:
    """`row` (B, N) times the mean over heads of the positive part of attention times its gradient (equation 5), of
    which `gradient` (B, heads, N, d) is that of what was attended."""
    given = torch.zeros_like(row)
    for images, heads, queries, attention in pieces(layer):
        slope = gradient[images, heads, queries].float() @ layer.value[images, heads].float().mT
        weighted = (attention * slope).clamp(min=0).mean(1) * (attention.shape[1] / layer.query.shape[1])
        given[images] += (row[images, None, queries] @ weighted)[:, 0]
    return given
