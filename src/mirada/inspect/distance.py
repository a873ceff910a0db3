"""Mean attention distance: how far away each head looks, in pixels (Dosovitskiy et al. 2021, arXiv:2010.11929, figure 7
and appendix D.7). It is to a transformer what the size of the receptive field is to a convolutional network."""

from functools import lru_cache

import torch
from torch import Tensor

from mirada.features import Backbone, Layer
from mirada.inspect.attention import every_layer, pieces

__all__ = ["attention_distance", "attention_distances", "layer_distance"]


def attention_distance(attention: Tensor, grid: tuple[int, int], stride: float, prefix: int = 1) -> Tensor:
    """Of attention (B, heads, N, N) between a `grid` of patches whose centres lie `stride` pixels apart: (B, heads)
    pixels, from 0 to the grid's diagonal.

    For each patch the distances to all patches, itself among them, are averaged with its attention as weights; then all
    patches count alike. The first `prefix` tokens have no place: their rows and columns are left out, and what remains
    of a row is brought back to a sum of 1.
    """
    between = attention[..., prefix:, prefix:]
    apart = distances(grid, stride).to(between)
    given = between.sum(-1)
    return ((between * apart).sum(-1) / given.clamp(min=torch.finfo(given.dtype).tiny)).mean(-1)


def layer_distance(layer: Layer, stride: float) -> Tensor:
    """The same of a layer, (B, heads), piece by piece, so that no N x N matrix is held."""
    apart = distances(layer.grid, stride).to(layer.query.device)
    patches = layer._replace(
        query=layer.query[:, :, layer.prefix :], key=layer.key[:, :, layer.prefix :],
        bias=None if layer.bias is None else layer.bias[:, layer.prefix :, layer.prefix :],
    )  # fmt: skip
    # A softmax over the patches alone is the one over all tokens, brought back to a sum of 1.
    total = torch.zeros(layer.query.shape[:2], device=apart.device)
    for piece in pieces(patches):
        total[piece.images, piece.heads] += (piece.attention * apart[piece.queries]).sum((2, 3))
    return total / len(apart)


def attention_distances(backbone: Backbone, images: Tensor, *, batch: int = 16) -> tuple[Tensor, ...]:
    """Of each attention layer, (B, heads) pixels, for normalised images (B, C, height, width).

    Take the mean over the first dimension for the figure of the paper. Where a layer works on a coarser grid (CoAtNet)
    its patches lie further apart. Raises `MiradaError` for a backbone without attention.
    """
    grids: dict[int, tuple[int, int]] = {}

    def see(layer: Layer) -> Tensor:
        grids[layer.index] = layer.grid
        return layer_distance(layer, 1)

    found = every_layer(backbone, images, see, batch=batch)
    strides = [float(backbone.stride)]  # of the last layer, and half of that before each halving of the grid
    for index in range(len(found) - 1, 0, -1):
        strides.append(strides[-1] if grids[index] == grids[index - 1] else strides[-1] / 2)
    return tuple(distance * stride for distance, stride in zip(found, reversed(strides), strict=True))


@lru_cache(maxsize=8)
def distances(grid: tuple[int, int], stride: float) -> Tensor:
    """Pixels between the centres of all patches, (H * W, H * W)."""
    rows, columns = (torch.arange(length, dtype=torch.float32) * stride for length in grid)
    y, x = (places.flatten() for places in torch.meshgrid(rows, columns, indexing="ij"))
    return torch.hypot(y[:, None] - y, x[:, None] - x)
