"""What one token attends to, layer by layer and head by head, from queries and keys: the fused kernel stays on, and no
N x N matrix is formed."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mirada.errors import MiradaError
from mirada.features import Backbone, Layer
from mirada.inspect.modes import evaluating

__all__ = ["class_attention", "every_layer", "token_attention"]


def token_attention(layer: Layer, queries: Sequence[int], heads: Sequence[int] | None = None) -> Tensor:
    """How much of their attention the tokens `queries` (Q of them) give to each patch: (B, heads, Q, H, W).

    Tokens are counted with those before the patches: patch (row, column) is token
    `layer.prefix + row * layer.grid[1] + column`. What goes to the tokens before the patches is left out, so a map sums
    to 1 or less. `heads` selects heads. Raises `MiradaError` for a head or token that there is not.
    """
    rows = layer.attention(heads, queries)[..., layer.prefix :]
    return rows.view(*rows.shape[:3], *layer.grid)


def class_attention(layer: Layer, heads: Sequence[int] | None = None) -> Tensor:
    """What stands for the whole image attends to, (B, heads, H, W): the class token's row, which is the first token
    before the patches, or where there is none the mean over the rows of all patches."""
    if layer.prefix:
        return token_attention(layer, [0], heads)[:, :, 0]
    selected = range(layer.query.shape[1]) if heads is None else heads
    means = [layer.attention([head])[:, 0].mean(1) for head in selected]
    return torch.stack(means, 1).view(len(means[0]), len(means), *layer.grid)


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
