"""Everything one model sees in one image, from one pass: what the page and the figures are drawn from.

Layers and heads are counted as Python counts, from 0. Attention between patches is kept for every layer and head, but
on a grid of at most `MOST_BLOCKS` blocks on a side, each the mean over a few patches, so that a deep model on a large
image fits into memory too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mirada.data.decode import as_seen
from mirada.errors import MiradaError
from mirada.features import Layer, within
from mirada.inspect.distance import attention_distance
from mirada.inspect.entropy import attention_entropy
from mirada.inspect.objects.attention_masks import attention_masks
from mirada.inspect.objects.boxes import Box, box, component
from mirada.inspect.objects.lost import lost
from mirada.inspect.objects.mask_cut import mask_cut
from mirada.inspect.objects.patches import see
from mirada.inspect.pca import patch_colours, patch_pca
from mirada.inspect.rollout import follow
from mirada.inspect.words import word_map
from mirada.model import Model
from mirada.modes import evaluating

__all__ = ["LayerLook", "Look", "Object", "blocks", "look"]

MOST_BLOCKS = 16


@dataclass(frozen=True, eq=False)
class LayerLook:
    """What one attention layer does with the image. h x w are its blocks, H x W its patches."""

    grid: tuple[int, int]  # H, W
    prefix: int  # tokens before the patches
    block: int  # patches on a side of a block
    attention: Tensor  # (heads, h, w, h, w) float16: from each block, how much each patch of each block gets
    spent: Tensor  # (heads, h, w) share of a block's attention that goes to the class token and registers
    summary: Tensor  # (heads, H, W) the class token's row, or the mean of all patches' rows where there is none
    rollout: Tensor  # (H, W) the same row of the rollout through all layers of this grid so far
    distance: Tensor  # (heads,) mean attention distance in pixels
    entropy: Tensor  # (heads,) mean entropy of the rows, in nats
    even_distance: float  # what a head that attends to all patches alike has
    even_entropy: float


@dataclass(frozen=True, eq=False)
class Object:
    """Something that one method takes for an object."""

    method: str
    how: str  # in a few words
    mask: Tensor  # (H, W) bool
    box: Box | None  # in patches, around the part of it that hangs together with the patch it grew from


@dataclass(frozen=True, eq=False)
class Look:
    """What a model sees in an image.

    Attributes:
        picture: the image as the model saw it: resized and cut.
        size: width and height of the image before that.
        class_token: whether `LayerLook.summary` is a class token's row.
        layers: one entry for each attention layer; empty for a backbone without attention.
        patches: (H, W, D) features after the final norm.
        colours, foreground: (H, W, 3) in [0, 1], the first three principal components of the patches, of all and of
            those of the object in front.
        objects: what is found without labels, by several methods.
        words: (H, W) cosines for each text.
    """

    picture: Image.Image
    size: tuple[int, int]
    class_token: bool
    layers: tuple[LayerLook, ...]
    patches: Tensor
    colours: Tensor
    foreground: Tensor
    objects: tuple[Object, ...]
    words: dict[str, Tensor] = field(default_factory=dict)

    def layer(self, index: int) -> LayerLook:
        """One layer; negative numbers count from the end. Raises `MiradaError` where there is none of that number."""
        if not self.layers:
            raise MiradaError("This model has no attention: look at its patches, or at what grad_cam finds, instead.")
        return self.layers[within([index], len(self.layers), "layer")[0]]


@torch.no_grad()
def look(model: Model, image: Image.Image, words: Mapping[str, Tensor] | None = None) -> Look:
    """Look at one image with the model's own preprocessing, upright. `words` are texts and their unit vectors (D,).

    No output of the model changes, and neither do the modes of its modules. Raises `MiradaError` for weights that make
    features that are not finite numbers, and for words without a text tower.
    """
    image = as_seen(image)
    pixels = model.preprocess.pixels(image)
    images = model.preprocess.normalise(pixels)[None].to(model.device, next(model.parameters()).dtype)
    class_token = getattr(model.backbone, "pooling", None) == "class"
    watch = Watch((images.shape[-2], images.shape[-1]), class_token)
    with evaluating(model):
        features = model.backbone(images, probe=watch)
        if not bool(features.patches.isfinite().all()):
            raise MiradaError(f"What {model.architecture!r} makes of the image is not finite numbers: its weights are "
                              "damaged, or its training diverged.")  # fmt: skip
        maps = {}
        if words:
            found = word_map(model, images, torch.stack(list(words.values())).to(images))[0].cpu()
            maps = dict(zip(words, found, strict=True))
        objects = find_objects(model, images)
    patches = features.patches[0].float().cpu()
    return Look(
        Image.fromarray(pixels.permute(1, 2, 0).numpy()), image.size, class_token, tuple(watch.layers), patches,
        patch_pca(patches[None])[0], patch_colours(patches[None]).colours[0], objects, maps,
    )  # fmt: skip


class Watch:
    """A probe that keeps what `LayerLook` says of each layer, asking for one head at a time."""

    def __init__(self, size: tuple[int, int], class_token: bool) -> None:
        self.size, self.class_token = size, class_token
        self.layers: list[LayerLook] = []
        self.flow: Tensor | None = None

    def __call__(self, layer: Layer) -> None:
        grid, prefix = layer.grid, layer.prefix
        stride = self.size[0] / grid[0]
        heads = layer.query.shape[1]
        block = -(-max(grid) // MOST_BLOCKS)
        kept: list[tuple[Any, ...]] = []
        mean: Tensor | None = None
        for head in range(heads):
            attention = layer.attention([head])  # (1, 1, N, N)
            mean = attention[:, 0] / heads if mean is None else mean + attention[:, 0] / heads
            between = attention[0, 0, prefix:, prefix:].view(*grid, *grid)
            spent = attention[0, 0, prefix:, :prefix].sum(1).view(grid)
            kept.append((
                blocks(blocks(between, block).permute(2, 3, 0, 1), block).permute(2, 3, 0, 1).half().cpu(),
                blocks(spent, block).cpu(), self.row(attention[0, 0], prefix).view(grid).cpu(),
                attention_distance(attention, grid, stride, prefix)[0, 0].cpu(),
                attention_entropy(attention)[0, 0].cpu(),
            ))  # fmt: skip
        assert mean is not None
        if not self.layers or self.layers[-1].grid != grid:
            self.flow = None
        self.flow = follow(self.flow, mean)
        rollout = self.row(self.flow[0], prefix).view(grid).cpu()
        attention, spent, summary, distance, entropy = (torch.stack(column) for column in zip(*kept, strict=True))
        self.layers.append(LayerLook(
            grid, prefix, block, attention, spent, summary, rollout, distance, entropy,
            even_distance(grid, stride), math.log(prefix + grid[0] * grid[1]),
        ))  # fmt: skip

    def row(self, matrix: Tensor, prefix: int) -> Tensor:
        """Of (N, N) the row that stands for the whole image, without the columns before the patches."""
        return matrix[0, prefix:] if self.class_token else matrix[prefix:, prefix:].mean(0)


@cache
def even_distance(grid: tuple[int, int], stride: float) -> float:
    """Pixels from a patch to another, in the mean over all pairs."""
    count = grid[0] * grid[1]
    return float(attention_distance(torch.full((1, 1, count, count), 1 / count), grid, stride, 0))


def blocks(maps: Tensor, size: int) -> Tensor:
    """Maps (..., H, W) as the means over blocks of `size` x `size`, (..., h, w); those at the ends may be smaller."""
    if size == 1:
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    pooled = F.avg_pool2d(flat, size, ceil_mode=True)
    return pooled.view(*maps.shape[:-2], *pooled.shape[-2:])


def find_objects(model: Model, images: Tensor) -> tuple[Object, ...]:
    """What each method finds in one image (1, 3, height, width), on the grid of the last layer."""
    seen = see(model.backbone, images)
    features = seen.features[0].cpu()
    found = []
    if seen.attention is not None:
        attention = seen.attention[0].mean(0).cpu()
        most = divmod(int(attention.argmax()), attention.shape[-1])
        found.append(("Attention", "the patches with 60% of it", attention_masks(attention), most))
    odd = lost(features)
    found.append(("LOST", "like the patch that is like fewest others", odd.mask, odd.seed))
    for number, cut in enumerate(mask_cut(features), 1):
        how = "a cut through the graph of like patches" if number == 1 else "a cut through what is left"
        found.append((f"MaskCut {number}", how, cut.mask, cut.seed))
    return tuple(
        Object(method, how, mask, box(component(mask, seed)) or box(mask)) for method, how, mask, seed in found
    )
