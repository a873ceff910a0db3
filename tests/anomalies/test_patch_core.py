"""PatchCore against slow loops of the paper's formulas, on features made by hand."""

import math

import pytest
import torch

from mirada.anomalies.patch_core import (
    LEAST,
    MEMORY,
    NEIGHBOURS,
    Memory,
    heat_maps,
    memory_size,
    patch_features,
    patch_scores,
)  # fmt: skip
from mirada.errors import MiradaError
from mirada.loading import load


@pytest.mark.parametrize("size", [1, 2, 5, 40])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_scores_are_the_papers(size: int, scale: float) -> None:
    rows, patches = scale * torch.randn(size, 4), scale * torch.randn(3, 2, 4)
    score, distances = patch_scores(Memory(rows, torch.zeros(size)), patches)
    slow = [[min(float(torch.dist(patch, row)) for row in rows) for patch in line] for line in patches]
    torch.testing.assert_close(distances, torch.tensor(slow), rtol=1e-4, atol=1e-4)
    flat = patches.flatten(0, 1)
    worst = max(flat, key=lambda patch: min(float(torch.dist(patch, row)) for row in rows))
    star = min(rows, key=lambda row: float(torch.dist(worst, row)))
    around = sorted(rows, key=lambda row: float(torch.dist(star, row)))[:NEIGHBOURS]
    total = sum(math.exp(float(torch.dist(worst, row) - torch.dist(worst, star))) for row in around)
    expected = float(torch.dist(worst, star)) * (1 - 1 / total if size > 1 else 1)
    assert score == pytest.approx(expected, rel=1e-3)


def test_a_normal_image_is_compared_with_the_others() -> None:
    memory = Memory(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]))
    patches = torch.tensor([[[5.0], [0.0]]])
    assert patch_scores(memory, patches)[1].tolist() == [[0.0, 0.0]]
    assert patch_scores(memory, patches, own=1)[1].tolist() == [[4.0, 0.0]]
    with pytest.raises(MiradaError, match="are of one image: add more"):
        patch_scores(Memory(memory.rows, torch.zeros(3)), patches, own=0)


def test_features_are_means_of_neighbouring_patches() -> None:
    model = load("vit-pico/8(depth=1)")
    images = torch.randn(2, 3, 24, 32)
    with torch.no_grad():
        patches = model.backbone(images).patches
    found = patch_features(model, images)
    assert found.shape == patches.shape == (2, 3, 4, 64)
    for row in range(3):
        for column in range(4):
            inside = patches[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            torch.testing.assert_close(found[:, row, column], inside.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_one_patch_is_no_grid() -> None:
    model = load("vit-pico/8(depth=1)")
    with pytest.raises(MiradaError, match=r"has no grid of patches .* use the method knn"):
        patch_features(model, torch.randn(1, 3, 8, 8))


def test_heat_maps_keep_their_level_and_their_place() -> None:
    even = heat_maps(torch.full((1, 4, 6), 3.0), (32, 48))
    assert even.shape == (1, 32, 48)
    torch.testing.assert_close(even, torch.full((1, 32, 48), 3.0))
    maps = torch.zeros(1, 4, 6)
    maps[0, 1, 4] = 1
    row, column = divmod(int(heat_maps(maps, (32, 48)).argmax()), 48)
    assert (row // 8, column // 8) == (1, 4)
    assert heat_maps(torch.rand(2, 1, 2), (3, 5)).shape == (2, 3, 5)


def test_the_size_of_the_memory() -> None:
    assert [memory_size(count) for count in (1, 50_000, 10_000_000)] == [LEAST, 5000, MEMORY]
