"""Drawn textures, some with a defect: an MVTec layout in which an untrained network finds them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["MODEL", "make_textures", "texture"]

MODEL = "vit-pico/8(depth=1, image_size=64)"


def texture(number: int, defect: str | None = None, side: int = 64) -> tuple[Image.Image, Image.Image]:
    """Stripes with noise, and where the defect is: a dark "hole" or a bright "scratch", another for each number."""
    random = np.random.default_rng([number, 7])
    stripes = 120 + 40 * np.sin(np.arange(side) * 2 * np.pi / 8)[:, None, None] * np.ones((1, side, 3))
    picture = Image.fromarray((stripes + random.normal(0, 6, (side, side, 3))).clip(0, 255).astype(np.uint8))
    mask = Image.new("L", picture.size)
    x, y = random.integers(8, side - 24, 2).tolist()
    for image, fill in ((picture, (10, 10, 10) if defect == "hole" else (250, 250, 200)), (mask, 255)):
        if defect == "hole":
            ImageDraw.Draw(image).ellipse((x, y, x + 14, y + 14), fill=fill)
        elif defect == "scratch":
            ImageDraw.Draw(image).line((x, y, x + 20, y + 12), fill=fill, width=4)
    return picture, mask


def make_textures(root: Path, train: int = 24, good: int = 8, bad: int = 5) -> Path:
    """`root`, with train/good, test/good, test/hole, test/scratch and ground_truth."""
    for folder in ("train/good", "test/good", "test/hole", "test/scratch", "ground_truth/hole", "ground_truth/scratch"):
        (root / folder).mkdir(parents=True)
    for number in range(train):
        texture(number)[0].save(root / "train" / "good" / f"{number:03}.png")
    for number in range(good):
        texture(1000 + number)[0].save(root / "test" / "good" / f"{number:03}.png")
    for place, defect in enumerate(("hole", "scratch")):
        for number in range(bad):
            picture, mask = texture(2000 + 100 * place + number, defect)
            picture.save(root / "test" / defect / f"{number:03}.png")
            mask.save(root / "ground_truth" / defect / f"{number:03}_mask.png")
    return root
