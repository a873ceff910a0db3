"""What one token attends to, layer by layer and head by head, from queries and keys: the fused kernel stays on, and no
N x N matrix is formed."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mirada.errors import MiradaError
from mirada.features import Backbone, Layer, within
from mirada.modes import evaluating

__all__ = ["class_attention", "every_layer", "has_class_token", "pieces", "token_attention"]

AT_ONCE = 2**19  # entries of attention that a processor's cache holds; other devices are kept busy by more
AT_ONCE_ELSEWHERE = 2**26


def token_attention(layer: Layer, queries: Sequence[int], heads: Sequence[int] | None = None) -> Tensor:
    """How much of their attention the tokens `queries` (Q of them) give to each patch: (B, heads, Q, H, W).

    Tokens are counted with those before the patches: patch (row, column) is token
    `layer.prefix + row * layer.grid[1] + column`. What goes to the tokens before the patches is left out, so a map sums
    to 1 or less. `heads` selects heads. Raises `MiradaError` for a head or token that there is not.
    """
    rows = layer.attention(heads, queries)[..., layer.prefix :]
    return rows.view(*rows.shape[:3], *layer.grid)


def class_attention(layer: Layer, heads: Sequence[int] | None = None, class_token: bool | None = None) -> Tensor:
    """What stands for the whole image attends to, (B, heads, H, W): the class token's row, which is the first token
    before the patches, or where there is none the mean over the rows of all patches.

    A layer does not know whether the tokens before its patches are registers only, so of a backbone that has such, and
    pools patches, say `class_token=has_class_token(backbone)`; None takes the first token, if any, for a class token.
    """
    if class_token is None:
        class_token = layer.prefix > 0
    if class_token:
        return token_attention(layer, [0], heads)[:, :, 0]
    selected = within(range(layer.query.shape[1]) if heads is None else heads, layer.query.shape[1], "head")
    seen = layer._replace(
        query=layer.query[:, selected, layer.prefix :], key=layer.key[:, selected],
        bias=None if layer.bias is None else layer.bias[selected, layer.prefix :],
    )  # fmt: skip
    total = seen.key.new_zeros(seen.key.shape[:3], dtype=torch.float32)
    for piece in pieces(seen):
        total[piece.images, piece.heads] += piece.attention.sum(2)
    return (total[..., layer.prefix :] / seen.query.shape[2]).view(*total.shape[:2], *layer.grid)


def has_class_token(backbone: Backbone) -> bool:
    """Whether the first of the tokens before the patches is what is pooled; registers alone are none."""
    return getattr(backbone, "pooling", None) == "class"


class Piece(NamedTuple):
    """A part of a layer's attention: the index of its images, heads and queries, and (b, h, q, N)."""

    images: slice
    heads: slice
    queries: slice
    attention: Tensor


def pieces(layer: Layer) -> Iterator[Piece]:
    """All of a layer's attention, (B, heads, Q, N), a few images at a time, or a few heads of one, or a few queries of
    one head: so that no image is too large, and that all of a piece stays in the processor's cache until it is used."""
    batch, heads, queries, _ = layer.query.shape
    keys = layer.key.shape[2]
    room = AT_ONCE if layer.query.device.type == "cpu" else AT_ONCE_ELSEWHERE
    some_queries = max(1, min(queries, room // keys))
    some_heads = max(1, min(heads, room // (keys * queries)))
    some_images = max(1, min(batch, room // (keys * queries * heads)))
    for image in range(0, batch, some_images):
        for head in range(0, heads, some_heads):
            for query in range(0, queries, some_queries):
                i, h, q = (slice(image, image + some_images), slice(head, head + some_heads),
                           slice(query, query + some_queries))  # fmt: skip
                part = layer._replace(
                    query=layer.query[i, h, q], key=layer.key[i, h],
                    bias=None if layer.bias is None else layer.bias[h, q],
                )  # fmt: skip
                yield Piece(i, h, q, part.attention())


@torch.no_grad()
def every_layer(
    backbone: Backbone, images: Tensor, see: Callable[[Layer], Tensor], *, batch: int = 16
) -> tuple[Tensor, ...]:
    """`see` of each attention layer, for images (B, C, height, width) in parts of `batch`: one tensor per layer, its
    first dimension B. Raises `MiradaError` for a backbone without attention."""
    if not len(images):
        raise MiradaError("There are no images: give at least one.")
    with evaluating(backbone):
        parts = [backbone(part, probe=see).trace for part in torch.split(images, batch)]
    require_attention(backbone, len(parts[0]))
    return tuple(torch.cat(layer) for layer in zip(*parts, strict=True))


def require_attention(backbone: Backbone, layers: int) -> None:
    """Raise `MiradaError` where no layer attends."""
    if not layers:
        raise MiradaError(f"A {type(backbone).__name__} has no attention: look at its receptive_field, its patch_pca "
                          "or a grad_cam instead.")  # fmt: skip
