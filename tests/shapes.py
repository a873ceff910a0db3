"""Coloured discs on noise: pictures that a tiny network can tell apart."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"blue": (30, 60, 200), "green": (20, 160, 60), "red": (200, 40, 30)}


def shape_picture(colour: str, number: int, side: int = 24) -> Image.Image:
    """A disc of roughly that colour somewhere on noise; another one for each number."""
    random = np.random.default_rng([number, sorted(COLOURS).index(colour)])
    picture = Image.fromarray(random.integers(90, 160, (side, side, 3), dtype=np.uint8))
    x, y = random.integers(2, side // 2, 2).tolist()
    ImageDraw.Draw(picture).ellipse((x, y, x + side // 2, y + side // 2), fill=COLOURS[colour])
    return picture


def make_shapes(folder: Path, count: int) -> Path:
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True)
        for number in range(count):
            shape_picture(colour, number).save(folder / colour / f"{number:03}.png")
    return folder
