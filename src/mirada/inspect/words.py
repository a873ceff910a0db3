"""Which patches of an image speak for a word, on any model with two towers, with fused attention on.

Two answers, of which the first needs no gradient: the features of the patches themselves beside the text's (MaskCLIP,
Zhou et al. 2022, arXiv:2112.01071), and where the similarity of image and text would change (Grad-CAM, Selvaraju et
al. 2017, arXiv:1610.02391).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.backbones.vit import ViT
from mirada.errors import MiradaError
from mirada.features import Features, Layer
from mirada.model import Model
from mirada.modes import evaluating

__all__ = ["vector_map", "word_gradients", "word_map"]


@torch.no_grad()
def word_map(model: Model, images: Tensor, words: Tensor) -> Tensor:
    """Cosines (B, T, H, W), from -1 to 1, between every patch of images (B, 3, height, width) and unit vectors (T, D)
    of texts.

    A patch's feature is what the image's would be if that patch were all that is pooled. Where a class token is pooled,
    patches were never trained to be that; there, in the last block, each patch takes its own value instead of
    attending to others (section 3.2 of the paper), which keeps it at its place.
    """
    model.two_towers()
    return vector_map(model, images, words)


@torch.no_grad()
def vector_map(model: Model, images: Tensor, vectors: Tensor) -> Tensor:
    """The same, (B, T, H, W), for any unit vectors (T, D) of the space of image features, such as those of pictures; a
    text tower is not needed."""
    with evaluating(model):
        patches = _patches(model, model.prepare(images))  # (B, H, W, D)
        batch, height, width, dim = patches.shape
        alone = patches.reshape(-1, 1, dim)
        pooled = alone[:, 0]
        if isinstance(model.backbone, ViT) and model.backbone.pooling in ("attention", "sequence"):
            pooled = model.backbone.pool(alone)
        feature = F.normalize(model.project(pooled).float(), dim=1)
    return (feature @ vectors.to(feature).mT).view(batch, height, width, -1).permute(0, 3, 1, 2)


def word_gradients(model: Model, images: Tensor, words: Tensor) -> Tensor:
    """Grad-CAM (B, T, H, W), 0 or more: for each of T texts, unit vectors (T, D), the product of the patches before the
    last block and the gradient there of the image's cosine with the text, summed over channels; what speaks against
    the text is cut off. Raises `MiradaError` for a backbone without attention."""
    model.two_towers()
    kept: list[Layer] = []
    with evaluating(model), torch.enable_grad():
        pixels = model.prepare(images).detach().requires_grad_()
        features = model.backbone(pixels, probe=kept.append)
        if not kept:
            raise MiradaError(f"{model.architecture!r} has no attention: use word_map, which needs none.")
        layer = kept[-2] if len(kept) > 1 and kept[-2].grid == kept[-1].grid else kept[-1]
        feature = F.normalize(model.project(features.pooled), dim=1)
        score = feature @ words.to(feature).mT
        maps = []
        for number in range(len(words)):
            (gradient,) = torch.autograd.grad(score[:, number].sum(), layer.tokens, retain_graph=True)
            maps.append((gradient * layer.tokens).sum(-1)[:, layer.prefix :].detach())
    return torch.stack(maps, 1).clamp(min=0).view(len(images), len(words), *layer.grid)


def _patches(model: Model, pixels: Tensor) -> Tensor:
    """Patches (B, H, W, D) after the final norm, each of which says what is there."""
    backbone = model.backbone
    if not isinstance(backbone, ViT) or backbone.pooling != "class" or len(backbone.blocks) < 2:
        features: Features = backbone(pixels)
        return features.patches
    kept: list[Layer] = []
    backbone(pixels, probe=kept.append)
    before, last = kept[-2], kept[-1]
    block: Any = backbone.blocks[-1]
    own = block.attention.proj(last.value.transpose(1, 2).flatten(2))
    x = before.tokens + block.scale1(own)
    x = x + block.scale2(block.feed_forward(block.norm2(x)))
    return backbone.norm(x)[:, backbone.prefix_tokens :].unflatten(1, last.grid)  # type: ignore[no-any-return]
