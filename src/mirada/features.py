"""The one contract every backbone keeps: images in, `Features` out, and a `Probe` that may look at every attention
layer.

Nothing is hooked. The fused attention kernel always runs; a probe is handed the queries, keys and values that went into
it and asks for the attention matrix only of the layers and heads it wants, so looking changes no output bit.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mirada.errors import MiradaError

__all__ = ["Backbone", "Features", "Layer", "Probe", "within"]


MOST_ENTRIES = 2**28  # of one attention matrix, of one head and image: 1 GiB


class Layer(NamedTuple):
    """One attention layer, as a probe sees it. N = prefix + grid height * grid width."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    tokens: Tensor  # (B, N, D) residual stream after the block
    query: Tensor  # (B, heads, N, d)
    key: Tensor  # (B, heads, N, d)
    value: Tensor  # (B, heads, N, d)
    grid: tuple[int, int]  # rows and columns of the patch grid; (1, k) when tokens were dropped
    prefix: int  # how many tokens (class token, registers) come before the patches
    bias: Tensor | None = None  # (heads, N, N) added to the scores before the softmax: relative attention
    attended: Tensor | None = None  # (B, heads, N, d) what came of it: attention @ value, before heads are joined

    def attention(self, heads: Sequence[int] | None = None, queries: Sequence[int] | None = None) -> Tensor:
        """The attention matrix, float32 (B, heads, N, N); every row is a softmax and sums to 1.

        Computed on each call and not kept. `heads` and `queries` select heads and rows, counted from 0 or, if negative,
        from the end; None means all. Raises `MiradaError` for one that there is not, and for more rows of more tokens
        than `MOST_ENTRIES`.
        """
        query, key, bias = self.query, self.key, self.bias
        if heads is not None:
            selected = within(heads, query.shape[1], "head")
            query, key = query[:, selected], key[:, selected]
            bias = None if bias is None else bias[selected]
        if queries is not None:
            rows = within(queries, query.shape[2], "token")
            query = query[:, :, rows]
            bias = None if bias is None else bias[:, rows]
        if (entries := query.shape[2] * key.shape[2]) > MOST_ENTRIES:
            raise MiradaError(
                f"An attention matrix of {query.shape[2]:,} x {key.shape[2]:,} tokens takes {entries * 4 / 1e9:.0f} GB "
                "for each head and image: use smaller images, or ask for some queries only."
            )
        with torch.autocast(query.device.type, enabled=False):
            scores: Tensor = (query.float() * query.shape[-1] ** -0.5) @ key.float().mT
            if bias is not None:
                scores = scores + bias.float()
            return scores.softmax(-1)


def within(numbers: Sequence[int], count: int, what: str) -> list[int]:
    """The numbers as a list. Raises `MiradaError` unless each of them, or from the end, is one of `count`."""
    for number in numbers:
        if not -count <= number < count:
            raise MiradaError(f"There is no {what} {number}: there are {count}, from 0 to {count - 1}, or -1 for the "
                              "last.")  # fmt: skip
    return list(numbers)


Probe = Callable[[Layer], Any]  # what it returns is kept in Features.trace, one entry per attention layer


class Features(NamedTuple):
    """What a backbone says about a batch of images."""

    pooled: Tensor  # (B, D) what the published model calls its image feature, before any classifier
    patches: Tensor  # (B, H, W, D) after the final norm; (B, 1, k, D) when only k patches were kept
    prefix: Tensor  # (B, P, D) class token and registers after the final norm; P = 0 for conv nets
    trace: tuple[Any, ...] = ()  # what the probe returned, layer by layer; empty without a probe


class Backbone(nn.Module):
    """Images to `Features`, in two steps so that an objective can mask or drop patches in between."""

    dim: int  # D, width of what comes out
    stem_dim: int  # E, width of what `embed` gives
    stride: int  # pixels of the image per entry of `Features.patches`, along one side
    num_layers: int  # the largest `layer_index`
    drops_tokens: bool = False  # whether `encode` takes `keep`

    def embed(self, images: Tensor) -> Tensor:
        """Pixels (B, C, height, width) to patch embeddings (B, h, w, E), before any position is added."""
        raise NotImplementedError

    def encode(self, patches: Tensor, *, keep: Tensor | None = None, probe: Probe | None = None) -> Features:
        """Patch embeddings (B, h, w, E) to features.

        `keep` (B, k) are indices into the h*w patches: the others are dropped before the first layer, as masked
        autoencoders do. `probe` is called once per attention layer.
        """
        raise NotImplementedError

    def forward(self, images: Tensor, *, probe: Probe | None = None) -> Features:
        """The whole way: `encode(embed(images))`."""
        return self.encode(self.embed(images), probe=probe)

    def pooled(self, images: Tensor) -> Tensor:
        """`forward(images).pooled`, (B, D), for whoever looks at nothing else: a backbone leaves out what only patches
        need."""
        features: Features = self(images)
        return features.pooled

    def prepare(self, images: Tensor) -> None:
        """Initialise what depends on data from normalised training images (B, C, height, width); called once before
        training from scratch. Most backbones have nothing to do."""

    def layer_index(self, parameter: str) -> int:
        """How deep a parameter, named as in `named_parameters()`, lies: 0 for the stem, `num_layers` for what comes
        after the last block. Layer-wise learning-rate decay counts with it."""
        raise NotImplementedError

    def require_multiple(self, images: Tensor, multiple: int, what: str) -> None:
        """Raise a `MiradaError` naming the nearest usable size unless both sides of `images` divide by `multiple`."""
        height, width = images.shape[-2:]
        if height % multiple or width % multiple or height == 0 or width == 0:
            usable = [max(1, round(side / multiple)) * multiple for side in (height, width)]
            raise MiradaError(
                f"Images of {height}x{width} pixels do not divide into {what} of {multiple}: "
                f"use an image size of {usable[0]}{'' if usable[0] == usable[1] else f'x{usable[1]}'}, "
                "or a model with another patch size."
            )

    def refuse_keep(self, keep: Tensor | None) -> None:
        """Raise a `MiradaError` when patches should be dropped but convolutions need the whole grid."""
        if keep is not None:
            raise MiradaError(
                f"A {type(self).__name__} cannot drop tokens, since its convolutions need the whole grid: use a ViT, "
                "or an objective that puts mask tokens between embed and encode, as SimMIM does, instead of dropping."
            )
