"""Weights between two models."""

from pathlib import Path

import pytest
import torch

from mirada.backbones import build
from mirada.blend import blend
from mirada.errors import MiradaError, Misuse
from mirada.loading import load
from mirada.model import Model
from mirada.preprocess import Preprocess


def model(folder: Path, seed: int, classes: list[str] | None = None, name: str = "vit-pico/8") -> str:
    torch.manual_seed(seed)
    backbone = build(name)
    head = None if classes is None else torch.nn.Linear(backbone.dim, len(classes))
    return str(Model(name, backbone, Preprocess(size=(224, 224)), head=head, classes=classes).save(folder))


def test_between_the_two(tmp_path: Path) -> None:
    first, second = model(tmp_path / "a", 0, ["x", "y"]), model(tmp_path / "b", 1, ["x", "y"])
    one, two = load(first).state_dict(), load(second).state_dict()
    for weight in (0.0, 0.25, 1.0):
        out = tmp_path / f"out{weight}"
        assert blend(first, second, str(out), weight=weight)["weight"] == weight
        for name, tensor in load(out).state_dict().items():
            torch.testing.assert_close(tensor, (1 - weight) * one[name] + weight * two[name])
    assert load(tmp_path / "out0.25").provenance["blend"] == [first, second]


def test_a_head_that_only_one_has_stays(tmp_path: Path) -> None:
    first, second = model(tmp_path / "a", 0), model(tmp_path / "b", 1, ["x", "y"])
    blend(first, second, str(tmp_path / "c"))
    assert torch.equal(load(tmp_path / "c").head.weight, load(second).head.weight)
    other = model(tmp_path / "d", 2, ["x", "z"])
    blend(other, second, str(tmp_path / "e"))
    assert load(tmp_path / "e").classes == ["x", "y"]


def test_what_cannot_be_blended(tmp_path: Path) -> None:
    first, second = model(tmp_path / "a", 0), model(tmp_path / "b", 0, name="vit-pico/16")
    with pytest.raises(MiradaError, match=r"not the same backbone \(vit-pico/8 and vit-pico/16\)"):
        blend(first, second, str(tmp_path / "c"))
    with pytest.raises(Misuse, match=r"A weight of 1\.5"):
        blend(first, first, str(tmp_path / "c"), weight=1.5)
    with pytest.raises(Misuse, match="is there already"):
        blend(first, first, second)
    assert not (tmp_path / "c").exists()
