"""A batch of decoded samples, before any objective has made its views of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from mirada.data.dataset import Captions

__all__ = ["Samples", "Transform"]

Transform = Callable[[Tensor, Tensor, tuple[int, int], Generator], Tensor]  # see Augmentation.__call__


class Samples:
    """What an objective's `views` function is given.

    Attributes:
        canvases: uint8 (B, C, S, S), each image squashed into a square.
        aspect: float32 (B,), true width over height.
        labels: int64 (B,), -1 where a sample has none.
        captions: those of each sample, none or more.
        size: height and width of the views in pixels.
        generator: the batch's own randomness, on the CPU, seeded by run seed and step alone.
    """

    def __init__(
        self, canvases: Tensor, aspect: Tensor, labels: Tensor, *, size: tuple[int, int], seed: int,
        mean: Tensor, std: Tensor, captions: Sequence[Captions] | None = None,
    ) -> None:  # fmt: skip
        self.canvases, self.aspect, self.labels, self.size = canvases, aspect, labels, size
        self.captions: Sequence[Captions] = [()] * len(canvases) if captions is None else captions
        self.generator = torch.Generator().manual_seed(seed)
        self._mean, self._std = (255 * value.to(canvases.device)[:, None, None] for value in (mean, std))
        self._views: dict[tuple[Transform, int, tuple[int, int]], Tensor] = {}

    def __len__(self) -> int:
        return len(self.canvases)

    def view(self, transform: Transform, number: int = 0, size: tuple[int, int] | None = None) -> Tensor:
        """Float32 images (B, C, *size), augmented and normalised. Asking twice for equal views gives the same tensor,
        which a Learner then sends through the backbone once.

        `number` tells independent draws of one transform apart: views 0 and 1 are two crops of each image. `size` is
        that of the samples unless given, as for the small crops of multi-crop.
        """
        size = size or self.size
        key = (transform, number, size)
        if key not in self._views:
            pixels = transform(self.canvases, self.aspect, size, self.generator)
            self._views[key] = pixels.sub_(self._mean).div_(self._std)
        return self._views[key]

    def pixels(self, view: Tensor) -> Tensor:
        """A view's colours in 0..1, before it was normalised."""
        return (view * self._std + self._mean) / 255
