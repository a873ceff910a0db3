"""Gradient-weighted rollout: which patches speak for a class or a text, through all layers (Chefer, Gur and Wolf 2021,
arXiv:2103.15679, equations 5 and 6).

The fused kernel keeps no attention matrix, and so no gradient of one. It need not: attended = attention @ value, so the
gradient of the attention is (gradient of attended) @ value^T, and both of these are there.
"""

import torch
from torch import Tensor

from mirada.features import Layer
from mirada.inspect.attention import require_attention
from mirada.inspect.modes import evaluating
from mirada.inspect.target import Target, score
from mirada.model import Model

__all__ = ["relevance"]


def relevance(model: Model, images: Tensor, target: Target | None = None) -> Tensor:
    """(B, H, W), 0 or more: how much each patch of normalised images (B, 3, height, width) says for `target`: the name
    or number of a class, a text's unit vector, or by default the class that the model finds.

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
    flow: Tensor | None = None
    with torch.no_grad():
        for layer, gradient in zip(kept, gradients, strict=True):
            step = weighted(layer, gradient)
            if flow is None or flow.shape[-1] != step.shape[-1]:
                flow = torch.eye(step.shape[-1], device=step.device).expand(len(images), -1, -1)
            flow = flow + step @ flow
    assert flow is not None
    last = kept[-1]
    rows = flow[:, :1] if getattr(model.backbone, "pooling", None) == "class" else flow[:, last.prefix :]
    return rows[:, :, last.prefix :].mean(1).view(len(rows), *last.grid)


def weighted(layer: Layer, gradient: Tensor | None) -> Tensor:
    """The mean over heads of the positive part of attention times its gradient, (B, N, N) (equation 5)."""
    batch, heads, tokens, _ = layer.query.shape
    total = torch.zeros(batch, tokens, tokens, device=layer.query.device)
    if gradient is None:  # nothing after this layer reads it
        return total
    for head in range(heads):
        slope = gradient[:, head].float() @ layer.value[:, head].float().mT
        total += (layer.attention([head])[:, 0] * slope).clamp(min=0) / heads
    return total
