"""What objects are found in: one feature for each patch, and where the class token looks."""

from typing import NamedTuple

import torch
from torch import Tensor

from mirada.errors import MiradaError
from mirada.features import Backbone, Layer
from mirada.inspect.attention import class_attention, has_class_token
from mirada.modes import evaluating

__all__ = ["Found", "Seen", "links", "nothing", "see", "stretched"]


class Seen(NamedTuple):
    """A batch of images as a backbone's last layer sees it, float32."""

    features: Tensor  # (B, H, W, D) the keys of the last attention layer, its heads side by side
    attention: Tensor | None  # (B, heads, H, W) what the class token attends to; None without attention


class Found(NamedTuple):
    """An object among the patches of one image."""

    mask: Tensor  # (H, W) bool; nowhere true where there is no object
    score: Tensor  # (H, W) float32 in [0, 1], how much each patch belongs to it
    seed: tuple[int, int]  # row and column of the patch that belongs to it most


class LastLayer:
    """A probe that keeps the last layer only."""

    layer: Layer | None = None

    def __call__(self, layer: Layer) -> None:
        self.layer = layer


@torch.no_grad()
def see(backbone: Backbone, images: Tensor) -> Seen:
    """Normalised images (B, C, height, width) to what objects are found in.

    Class token and registers are left out. A backbone without attention has its patch features instead of keys. The
    modes of the backbone's modules are as before afterwards.
    """
    look = LastLayer()
    with evaluating(backbone):
        patches = backbone(images, probe=look).patches
    if look.layer is None:
        return Seen(patches.float(), None)
    layer = look.layer
    keys = layer.key[:, :, layer.prefix :].float()  # (B, heads, H * W, d)
    features = keys.transpose(1, 2).reshape(len(keys), *layer.grid, -1)
    return Seen(features, class_attention(layer, class_token=has_class_token(backbone)))


def links(similarity: Tensor, threshold: float) -> Tensor | None:
    """Which patches are at least so similar, bool (N, N) of (N, N); None if no two are, or all are, as in an image of
    one colour: then nothing tells an object from what is around it.

    Raises `MiradaError` for features that are not finite.
    """
    if not bool(similarity.isfinite().all()):
        raise MiradaError("The features of an image are not finite numbers: the weights are damaged, or the training "
                          "that made them diverged.")  # fmt: skip
    linked = similarity >= threshold
    pairs = int(linked.sum() - linked.diagonal().sum())
    return linked if 0 < pairs < len(linked) * (len(linked) - 1) else None


def nothing(height: int, width: int) -> Found:
    """No object."""
    return Found(torch.zeros(height, width, dtype=torch.bool), torch.zeros(height, width), (0, 0))


def stretched(values: Tensor) -> Tensor:
    """Float32 that runs from 0 to 1; zeros where all values are equal."""
    low, high = values.min(), values.max()
    return ((values - low) / (high - low)).float() if high > low else torch.zeros_like(values, dtype=torch.float32)
