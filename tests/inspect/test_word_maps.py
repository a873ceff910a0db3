"""Heat-maps of words: what they must be by construction, on every pooling."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.inspect.words import word_gradients, word_map
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign

TEXT: dict[str, Any] = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "dim": 12}


def model(name: str) -> Model:
    torch.manual_seed(0)
    return Model(name, build(name), Preprocess(size=(32, 32)), projection=Projection(12), text=TextDesign(**TEXT))


VITS = [f"vit-pico/8(image_size=32, depth=2, pooling={pooling!r}, registers=1)" for pooling in
        ("class", "average", "sequence", "attention")]  # fmt: skip


@pytest.mark.parametrize("name", [*VITS, "coatnet-0(image_size=32)", "resnet-18"])
def test_shapes_and_ranges(name: str) -> None:
    two_towers = model(name)
    words = two_towers.encode_text(["a cat", "a dog"], normalize=True)
    images = torch.randn(3, 3, 32, 32)
    grid = two_towers.backbone(images).patches.shape[1:3]
    found = word_map(two_towers, images, words)
    assert found.shape == (3, 2, *grid)
    assert bool((found.abs() <= 1 + 1e-5).all())
    assert two_towers.training  # as it was
    one = word_map(two_towers, images[1:2], words[1:])
    torch.testing.assert_close(found[1:2, 1:], one, rtol=1e-4, atol=1e-5)


def test_the_mean_of_average_pooling_is_the_image() -> None:
    two_towers = model(VITS[1])
    two_towers.eval()
    images = torch.randn(2, 3, 32, 32)
    patches = two_towers.backbone(images).patches
    words = two_towers.encode_text(["a cat"], normalize=True)
    length = two_towers.project(patches.flatten(1, 2)).norm(dim=-1).view(2, 4, 4)
    weighted = (word_map(two_towers, images, words)[:, 0] * length).mean((1, 2))
    torch.testing.assert_close(weighted, (two_towers.encode_image(images) @ words.T)[:, 0], rtol=1e-4, atol=1e-5)


def test_in_the_last_block_a_patch_sees_only_itself() -> None:
    """As a block whose attention is the identity, computed with a bias that forbids all else."""
    two_towers = model(VITS[0]).eval()
    backbone, images = two_towers.backbone, torch.randn(2, 3, 32, 32)
    words = two_towers.encode_text(["a cat"], normalize=True)
    kept: list[torch.Tensor] = []
    backbone(images, probe=lambda layer: kept.append(layer.tokens))
    forbidden = torch.full((18, 18), -torch.inf).fill_diagonal_(0).expand(2, -1, -1)
    x, _ = backbone.blocks[-1](kept[-2], bias=forbidden)
    feature = F.normalize(two_towers.project(backbone.norm(x)[:, 2:]), dim=2)
    torch.testing.assert_close(word_map(two_towers, images, words).flatten(2)[:, 0], (feature @ words.T)[:, :, 0])


@pytest.mark.parametrize("name", VITS)
def test_gradients_as_finite_differences(name: str) -> None:
    """Scaling one patch before the last block moves the cosine as Grad-CAM says."""
    two_towers = model(name).double().eval()
    backbone, images = two_towers.backbone, torch.randn(1, 3, 32, 32).double()
    words = two_towers.encode_text(["a cat"], normalize=True).double()
    tokens: list[torch.Tensor] = []
    backbone(images, probe=lambda layer: tokens.append(layer.tokens))

    def score(x: torch.Tensor) -> torch.Tensor:
        x = backbone.norm(backbone.blocks[-1](x)[0])
        patches = x[:, backbone.prefix_tokens :]
        pooled = {
            "class": lambda: x[:, 0], "average": lambda: patches.mean(1),
            "sequence": lambda: backbone.pool(patches), "attention": lambda: backbone.pool(x),
        }[backbone.pooling]()  # fmt: skip
        return (F.normalize(two_towers.project(pooled), dim=1) @ words.T)[0, 0]

    found = word_gradients(two_towers, images, words)
    assert not images.requires_grad  # it is the caller's
    assert found.shape == (1, 1, 4, 4)
    assert bool((found >= 0).all())
    assert all(parameter.grad is None for parameter in two_towers.parameters())
    best = int(found.flatten().argmax())
    step = 1e-2
    moved = []
    for sign in (1, -1):
        x = tokens[0].clone()
        x[:, backbone.prefix_tokens + best] *= 1 + sign * step
        moved.append(float(score(x).detach()))
    assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(float(found.flatten()[best]), rel=0.01)


def test_without_attention_or_words() -> None:
    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(MiradaError, match="'resnet-18' has no attention: use word_map"):
        word_gradients(model("resnet-18"), images, torch.randn(1, 12))
    alone = Model("vit-pico/8", build("vit-pico/8"), Preprocess(size=(32, 32)))
    with pytest.raises(MiradaError, match="has no text tower"):
        word_map(alone, images, torch.randn(1, 12))
