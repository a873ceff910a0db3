"""Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928): how much of each input token reaches each output token.

One layer moves content by (A + I) / 2, half attention and half residual; several layers by the product. Rows of A sum
to 1, so rows of the product do: each says where one output token got its content from.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mirada.errors import MiradaError
from mirada.features import MOST_ENTRIES, Backbone, Layer
from mirada.inspect.attention import has_class_token, pieces
from mirada.modes import evaluating

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

    It keeps one N x N matrix per image, whatever the depth, and asks for attention piece by piece. Where the grid
    changes (CoAtNet halves it) tokens no longer correspond, so it starts again: the result is that of the last grid. It
    starts again at each pass, too. Raises `MiradaError` where the matrices of a batch have more than `MOST_ENTRIES`.
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
        batch, heads, tokens, _ = layer.query.shape
        if batch * tokens**2 > MOST_ENTRIES:
            raise MiradaError(
                f"The rollout of {batch} images with {tokens:,} tokens each takes {batch * tokens**2 * 4 / 1e9:.1f} "
                "GB: give fewer images at once, or smaller ones."
            )
        mean = torch.zeros(batch, tokens, tokens, device=layer.query.device)
        for piece in pieces(layer):
            mean[piece.images, piece.queries] += piece.attention.sum(1) / heads
        self.flow = follow(self.flow, mean)


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
    rows = look.flow[:, :1] if has_class_token(backbone) else look.flow[:, look.prefix :]
    weights = rows[:, :, look.prefix :].mean(1)
    low, high = weights.aminmax(dim=1, keepdim=True)
    spread = high - low
    stretched = torch.where(spread > 1e-5 * high, (weights - low) / spread, 0.0)  # else no more than rounding
    return stretched.reshape(-1, *look.grid)
