"""Small real-enough data that the tests make themselves: coloured shapes that a tiny network can tell apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

COLOURS = {"blue": (30, 60, 200), "green": (20, 160, 60), "red": (200, 40, 30)}


def shape_picture(colour: str, number: int, side: int = 24) -> Image.Image:
    """A disc of roughly that colour somewhere on noise; another one for each number."""
    random = np.random.default_rng([number, sorted(COLOURS).index(colour)])
    picture = Image.fromarray(random.integers(90, 160, (side, side, 3), dtype=np.uint8))
    x, y = random.integers(2, side // 2, 2).tolist()
    ImageDraw.Draw(picture).ellipse((x, y, x + side // 2, y + side // 2), fill=COLOURS[colour])
    return picture


@pytest.fixture(scope="session")
def folder_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, thirty pictures each, in a subfolder per class; not to be changed."""
    return make_shapes(tmp_path_factory.mktemp("shapes"), 30)


def make_shapes(folder: Path, count: int) -> Path:
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for number in range(count):
            shape_picture(colour, number).save(folder / colour / f"{number:03}.png")
    return folder


@pytest.fixture
def new_shapes(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder of shapes that the test may change."""
    return lambda count: make_shapes(tmp_path / "shapes", count)


@pytest.fixture(autouse=True)
def _seeded() -> None:
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
