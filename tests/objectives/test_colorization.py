"""Colours, bins, soft encoding, weights and the loss are the paper's formulas, written here as plain loops."""

import math

import pytest
import torch
from torch import Tensor

from mirada.backbones import build
from mirada.data.augment import augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.colorization import BINS, Colorization, lab, rebalanced, soft_encode, views

NONE = augmentation("none")
PICO = "vit-pico/4(depth=1, image_size=16)"


def samples(canvases: Tensor) -> Samples:
    mean, std = torch.tensor([0.48, 0.45, 0.4]), torch.tensor([0.2, 0.25, 0.3])
    count, size = len(canvases), (canvases.shape[2], canvases.shape[3])
    return Samples(canvases, torch.ones(count), torch.zeros(count), size=size, seed=1, mean=mean, std=std)


def noise(side: int, count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def srgb(steps: int) -> Tensor:
    """Colours all over sRGB, (N, 3)."""
    return torch.cartesian_prod(*[torch.linspace(0, 1, steps)] * 3)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
        ((0.02, 0.01, 0.03), (0.949, 1.376, -1.695)),
    ],
)
def test_lab_has_the_standards_values(rgb: tuple[float, ...], expected: tuple[float, ...]) -> None:
    found = lab(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=0.01, rtol=0)


def test_there_are_313_bins_and_every_colour_of_srgb_has_its_own() -> None:
    assert BINS.shape == (313, 2)
    assert len(BINS.unique(dim=0)) == 313
    assert (BINS % 10 == 0).all()
    colours = lab(srgb(40)[:, :, None, None])[:, 1:, 0, 0]
    nearest = (colours / 10).round().unique(dim=0) * 10
    known = {tuple(row) for row in BINS.tolist()}
    assert {tuple(row) for row in nearest.tolist()} <= known
    assert 255 <= len(nearest) <= 262
    corners = torch.cat([torch.stack([a(colours[:, 0] / 10), b(colours[:, 1] / 10)], 1)
                         for a in (torch.floor, torch.ceil) for b in (torch.floor, torch.ceil)])  # fmt: skip
    assert {tuple(row) for row in (corners.unique(dim=0) * 10).tolist()} <= known


def test_the_soft_encoding_is_a_gaussian_over_five_bins() -> None:
    colours = lab(srgb(4)[:, :, None, None])[:, 1:, 0, 0] + 0.3 * torch.rand(64, 2)
    share, index = soft_encode(colours, BINS)
    dense = torch.zeros(64, 313).scatter(1, index, share)
    for colour, row, first in zip(colours.tolist(), dense.tolist(), index[:, 0].tolist(), strict=True):
        distances = [math.dist(colour, place) for place in BINS.tolist()]
        nearest = sorted(range(313), key=distances.__getitem__)[:5]
        weights = {place: math.exp(-(distances[place] ** 2) / (2 * 5**2)) for place in nearest}
        expected = [weights.get(place, 0.0) / sum(weights.values()) for place in range(313)]
        assert row == pytest.approx(expected, abs=1e-5)
        assert first == nearest[0]


def test_rare_colours_weigh_more() -> None:
    prior = torch.tensor([0.5, 0.3, 0.2, 0.0])
    raw = [1 / (0.5 * p + 0.5 / 4) for p in prior.tolist()]
    scale = sum(p * w for p, w in zip(prior.tolist(), raw, strict=True))
    torch.testing.assert_close(rebalanced(prior, 0.5), torch.tensor(raw) / scale)
    torch.testing.assert_close(rebalanced(prior, 1.0), torch.ones(4))


def test_the_input_is_lightness_normalised_like_any_image() -> None:
    data = samples(noise(16, 3))
    batch = views(data, NONE)
    pixels = data.pixels(batch["image"])
    expected = lab(data.canvases / 255)
    torch.testing.assert_close(pixels, expected[:, :1].expand(-1, 3, -1, -1) / 100, atol=1e-4, rtol=0)
    torch.testing.assert_close(batch["ab"], expected[:, 1:], atol=1e-2, rtol=0)


@pytest.mark.parametrize("cells", [1, 2])
def test_loss_and_gradients_are_the_papers_formula(cells: int) -> None:
    """L = -sum over places of v(Z) sum over bins of Z log Z^, here divided by the number of places."""
    torch.manual_seed(0)
    backbone = build(PICO)
    objective = Colorization(backbone, cells=cells)
    torch.nn.init.normal_(objective.head.weight, std=0.3)
    batch = objective.views(samples(noise(16, 2)))
    objective.prior.copy_(torch.rand(313).softmax(0))
    objective.updates.fill_(5)
    result = objective(backbone, batch, 0.0)
    result["loss"].backward()
    gradient = objective.head.weight.grad.clone()
    objective.head.weight.grad = None

    weight, side, places = rebalanced(objective.prior, 0.5), 4 // cells, 0
    total = torch.zeros(())
    for image, ab in zip(batch["image"], batch["ab"], strict=True):
        features = backbone(image[None]).patches[0]
        for row in range(4 * cells):
            for column in range(4 * cells):
                logits = objective.head(features[row // cells, column // cells])
                cell = (row % cells) * cells + column % cells
                log_odds = logits[313 * cell : 313 * cell + 313].log_softmax(0)
                area = ab[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
                share, index = soft_encode(area.mean((1, 2))[None], BINS)
                target = torch.zeros(313).scatter(0, index[0], share[0])
                total = total - weight[target.argmax()] * (target * log_odds).sum()
                places += 1
    (total / places).backward()
    torch.testing.assert_close(result["loss"], total / places, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, objective.head.weight.grad, rtol=1e-3, atol=1e-5)


def test_the_prior_is_a_running_average_of_frequencies() -> None:
    torch.manual_seed(0)
    backbone = build(PICO)
    objective = Colorization(backbone, memory=0.6)
    expected = torch.zeros(313)
    for step, canvases in enumerate(noise(16, 20).split(4)):
        batch = objective.views(samples(canvases))
        ab = torch.nn.functional.avg_pool2d(batch["ab"], 4).permute(0, 2, 3, 1).reshape(-1, 2)
        seen = torch.zeros(313)
        for share, index in zip(*soft_encode(ab, BINS), strict=True):
            seen[index] += share / len(ab)
        keep = min(0.6, step / (step + 1))
        expected = keep * expected + (1 - keep) * seen
        objective(backbone, batch, 0.0)
        torch.testing.assert_close(objective.prior, expected, atol=1e-5, rtol=1e-3)
    assert objective.prior.sum().item() == pytest.approx(1, abs=1e-4)
    kept = objective.prior.clone()
    objective.eval()(backbone, batch, 0.0)
    assert objective.prior.equal(kept)
    assert {"prior", "updates"} <= objective.state_dict().keys()  # a resumed run goes on with them


def test_grey_images_are_no_trouble() -> None:
    backbone = build(PICO)
    objective = Colorization(backbone)
    grey = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8).expand(-1, 3, -1, -1)
    assert objective(backbone, objective.views(samples(grey)), 0.0)["loss"].isfinite()
    assert BINS[objective.prior.argmax()].tolist() == [0, 0]


def test_patches_of_eight_pixels_have_four_cells_by_default() -> None:
    assert Colorization(build("vit-pico/8(depth=1, image_size=16)")).head.out_features == 4 * 313
    assert Colorization(build(PICO)).head.out_features == 313


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mixing": 0.0}, "mixing of 0.0"), ({"memory": 1.0}, "memory of 1.0"), ({"cells": 5}, "into 5 cells a side")],
)
def test_mistakes_are_explained(options: dict[str, float], message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        Colorization(build(PICO), **options)
