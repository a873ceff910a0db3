"""The mean-shifted loss against a slow loop of the paper's equations, and what adaptation changes."""

import math
from pathlib import Path

import pytest
import torch
from textures import MODEL, make_textures
from torch.nn import functional as F

import mirada.anomalies.mean_shift as module
from mirada.anomalies.mean_shift import TEMPERATURE, adapt, mean_shifted
from mirada.data.sources import list_images
from mirada.errors import MiradaError
from mirada.loading import load


def test_the_loss_is_the_papers() -> None:
    first, second, centre = torch.randn(4, 6), torch.randn(4, 6), F.normalize(torch.randn(10, 6), dim=1).mean(0)
    unit = [row / row.norm() for row in (*first, *second)]
    shifted = [(row - centre) / (row - centre).norm() for row in unit]
    total = 0.0
    for i in range(8):
        partner = (i + 4) % 8
        others = sum(math.exp(float(shifted[i] @ shifted[j]) / TEMPERATURE) for j in range(8) if j != i)
        total -= math.log(math.exp(float(shifted[i] @ shifted[partner]) / TEMPERATURE) / others)
    contrast = total / 8
    angular = -sum(float(row @ centre) for row in unit) / 8
    assert float(mean_shifted(first, second, centre, angular=False)) == pytest.approx(contrast, rel=1e-5)
    assert float(mean_shifted(first, second, centre)) == pytest.approx(contrast + angular, rel=1e-5)


def test_adaptation_leaves_the_model_alone_lowers_the_loss_and_repeats(tmp_path: Path) -> None:
    folder = make_textures(tmp_path, train=12, good=1, bad=1) / "train"
    model, normal = load(MODEL), list_images([folder])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features = model.encode_image(sorted(map(str, folder.rglob("*.png"))))
    seen: list[tuple[str, int, int]] = []
    adapted = adapt(model, normal, features, steps=3, batch=6, on_progress=lambda *facts: seen.append(facts))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
    assert [done for _, done, _ in seen] == [1, 2, 3]
    assert not adapted.training
    assert all(not parameter.requires_grad for parameter in adapted.parameters())
    again = adapt(model, normal, features, steps=3, batch=6)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in adapted.state_dict().items())


def test_adaptation_that_diverges_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_textures(tmp_path, train=4, good=1, bad=1) / "train"
    monkeypatch.setattr(module, "mean_shifted", lambda first, *_: first.sum() * torch.nan)
    with pytest.raises(MiradaError, match="diverged at step 1: use the method knn"):
        adapt(load(MODEL), list_images([folder]), torch.randn(4, 64), steps=2)
