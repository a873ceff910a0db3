"""Turned views are exact turns of the upright view, and the label says by how much."""

import pytest
import torch

from mirada.data.augment import augmentation
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
