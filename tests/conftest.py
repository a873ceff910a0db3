"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch
from shapes import make_shapes

if TYPE_CHECKING:
    from playwright.sync_api import Browser

hypothesis.settings.register_profile("mirada", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("mirada")


@pytest.fixture(scope="session")
def folder_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, thirty pictures each, in a subfolder per class; not to be changed."""
    return make_shapes(tmp_path_factory.mktemp("shapes"), 30)


@pytest.fixture
def new_shapes(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder of shapes that the test may change."""
    return lambda count: make_shapes(tmp_path / "shapes", count)


@pytest.fixture(autouse=True)
def _the_same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIRADA_CACHE", str(tmp_path / "cache"))  # never the user's
    monkeypatch.delenv("COLUMNS", raising=False)  # workers are told a width
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def trained_run(folder_of_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on `folder_of_shapes`; not to be changed."""
    from mirada.train.run import train
    from mirada.train.settings import Settings

    settings = Settings(
        model="vit-pico/8(depth=2)", image_size=24, batch=16, steps=60, precision="float32", learning_rate=2e-3,
        validate=0,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("runs") / "shapes"
    train(str(folder_of_shapes), settings, out=str(out), command=["mirada", "train", "shapes"])
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; whoever asks for it is skipped where there is none."""
    from browsing import launched

    with launched() as browser:
        yield browser
