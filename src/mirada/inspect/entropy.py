"""How spread out attention is: the entropy of its rows."""

import torch
from torch import Tensor

from mirada.features import Backbone, Layer
from mirada.inspect.attention import every_layer, pieces

__all__ = ["attention_entropies", "attention_entropy"]


def attention_entropy(attention: Tensor) -> Tensor:
    """Of attention (B, heads, N, M): (B, heads) nats, the mean over the N rows; from 0, all of a row on one token, to
    ln M, the same for every token."""
    entropy: Tensor = torch.special.entr(attention).sum(-1).mean(-1)
    return entropy


def attention_entropies(backbone: Backbone, images: Tensor, *, batch: int = 16) -> tuple[Tensor, ...]:
    """Of each attention layer, (B, heads) nats, piece by piece. Raises `MiradaError` for a backbone without
    attention."""

    def see(layer: Layer) -> Tensor:
        total = torch.zeros(layer.query.shape[:2], device=layer.query.device)
        for piece in pieces(layer):
            total[piece.images, piece.heads] += torch.special.entr(piece.attention).sum((2, 3))
        return total / layer.query.shape[2]

    return every_layer(backbone, images, see, batch=batch)
