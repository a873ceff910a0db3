"""The guide's code runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot
from shapes import shape_picture
from torch import nn

import mirada
from mirada import inspect
from mirada.backbones import build
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign

GUIDE = Path(__file__).parents[2] / "docs" / "looking.md"


def small(ref: str) -> Model:
    """In place of a model that the guide names."""
    torch.manual_seed(0)
    name = "vit-pico/8(image_size=32)"
    if ref.startswith("openai"):
        text = TextDesign(width=16, depth=1, num_heads=2, hidden=16, dim=12)
        return Model(name, build(name), Preprocess(size=(32, 32)), projection=Projection(12), text=text).eval()
    return Model(name, build(name), Preprocess(size=(32, 32)), head=nn.Linear(64, 2), classes=["cat", "dog"]).eval()


def test_every_line_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mirada, "load", small)
    for number, name in enumerate(("cat", "dog", "owl", "fox")):
        shape_picture("red", number % 3, 40).save(f"{name}.jpg")
    known: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, known)  # the guide's own code
    assert Path("heads.png").stat().st_size > 1000
    assert not pyplot.get_fignums()


def test_it_names_every_function() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in inspect.__all__ if not re.search(rf"\b{name}\b", text)] == []
