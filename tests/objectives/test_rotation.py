"""Turned views are exact turns of the upright view, and the label says by how much."""

import numpy as np
import pytest
import torch
from PIL import Image

from mirada.data.augment import augmentation
from mirada.data.decode import to_canvas
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.rotation import views


def samples(size: tuple[int, int] = (16, 16)) -> Samples:
    canvases = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    half = torch.full((3,), 0.5)
    return Samples(canvases, torch.ones(64), torch.zeros(64), size=size, seed=1, mean=half, std=half)


def test_each_image_is_turned_by_its_label() -> None:
    transform = augmentation("light")
    data = samples()
    upright = data.view(transform)
    turned = views(data, transform)
    assert set(turned["label"].tolist()) == {0, 1, 2, 3}
    for before, after, label in zip(upright, turned["image"], turned["label"], strict=True):
        assert torch.equal(torch.rot90(before, int(label), (1, 2)), after)


def test_oblong_images_are_refused() -> None:
    with pytest.raises(MiradaError, match="needs square images, not 16x24"):
        views(samples((16, 24)), augmentation("light"))


@pytest.mark.parametrize("augment", ["light", "none", "zoom"])
@pytest.mark.parametrize("size", [(240, 160), (160, 240), (285, 160)])
def test_the_turn_of_a_long_picture_cannot_be_told_by_its_sharpness(augment: str, size: tuple[int, int]) -> None:
    """Noise has no up and down: differences between neighbours are as large from left to right as from top to bottom,
    in pictures that were turned and in those that were not."""
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8)) for _ in range(64)]
    canvases, aspects = zip(*(to_canvas(picture, 80) for picture in pictures), strict=True)
    half = torch.full((3,), 0.5)
    data = Samples(torch.stack(canvases), torch.tensor(aspects), torch.zeros(64), size=(64, 64), seed=1, mean=half,
                   std=half)  # fmt: skip
    turned = views(data, augmentation(augment))
    lying = turned["image"][turned["label"] % 2 == 1]
    across, down = ((lying.diff(dim=axis) ** 2).mean().item() for axis in (3, 2))
    assert turned["image"].shape == (64, 3, 64, 64)
    assert 0.85 < across / down < 1.18
