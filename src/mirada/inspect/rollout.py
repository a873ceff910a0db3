"""Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928): how much of each input token reaches each output token.

One layer moves content by (A + I) / 2, half attention and half residual; several layers by the product. Rows of A sum
to 1, so rows of the product do: each says where one output token got its content from.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mirada.errors import MiradaError
from mirada.features import Backbone, Layer
from mirada.inspect.modes import evaluating

__all__ = ["Rollout", "attention_map", "rollout"]


def rollout(attentions: Iterable[Tensor]) -> Tensor:
    """Attention matrices (B, heads, N, N), first layer first, to their rollout (B, N, N); every row sums to 1.

    A generator is consumed one matrix at a time.
    """
    flow: Tensor | None = None
    for attention in attentions:
        flow = follow(flow, attention.mean(1))
    if flow is None:
        raise MiradaError("Rollout needs the attention of at least one layer: use a backbone that has attention.")
    return flow


def follow(flow: Tensor | None, attention: Tensor) -> Tensor:
    """One more layer, attention (B, N, N) averaged over its heads, on top of the flow (B, N, N) so far."""
    step = (attention + torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)) / 2
    return step if flow is None else step @ flow


class Rollout:
    """The same as a probe: `backbone(images, probe=look)`, then `look.flow`.

    It keeps one N x N matrix per image, whatever the depth, and asks for one head at a time. Where the grid changes
    (CoAtNet halves it) tokens no longer correspond, so it starts again: the result is that of the last grid. It starts
    again at each pass, too.
    """

    flow: Tensor | None = None  # (B, N, N), float32; None until a layer has been seen
    grid: tuple[int, int] = (0, 0)
    prefix: int = 0
    index: int = -1

    @torch.no_grad()
    def __call__(self, layer: Layer) -> None:
        if layer.grid != self.grid or layer.index <= self.index:
            self.flow = None
        self.grid, self.prefix, self.index = layer.grid, layer.prefix, layer.index
        heads = layer.query.shape[1]
        attention = layer.attention([0])[:, 0]
        for head in range(1, heads):
            attention += layer.attention([head])[:, 0]
        self.flow = follow(self.flow, attention / heads)


@torch.no_grad()
def attention_map(backbone: Backbone, images: Tensor) -> Tensor | None:
    """Where the pooled feature of images (B, C, height, width) looks: (B, H, W) in [0, 1], or None without attention.

    The row of the class token where that is what is pooled, the mean over the rows of all patches otherwise; registers
    are left out. Each map is stretched to run from 0 to 1; one without any preference is 0 everywhere.
    """
    look = Rollout()
    with evaluating(backbone):
        backbone(images, probe=look)
    if look.flow is None:
        return None
    rows = look.flow[:, :1] if getattr(backbone, "pooling", None) == "class" else look.flow[:, look.prefix :]
    weights = rows[:, :, look.prefix :].mean(1)
    low, high = weights.aminmax(dim=1, keepdim=True)
    spread = high - low
    stretched = torch.where(spread > 1e-5 * high, (weights - low) / spread, 0.0)  # else no more than rounding
    return stretched.reshape(-1, *look.grid)
