"""Models with random weights whose pages `mirada inspect` writes in tests."""

from pathlib import Path

import torch

from mirada.backbones import build
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign

SMALL = "vit-pico/8(image_size=32)"
FAMILIES = [
    SMALL, "vit-pico/8(image_size=32, pooling='average')", "vit-pico/8(image_size=32, registers=2)", "coatnet-0",
    "resnet-18", "regnety-400mf",
]  # fmt: skip


def two_towers(folder: Path) -> Path:
    """A model that knows words, saved in this folder."""
    torch.manual_seed(0)
    text = TextDesign(width=16, depth=1, num_heads=2, hidden=16, dim=12)
    made = Model(SMALL, build(SMALL), Preprocess(size=(32, 32)), projection=Projection(12), text=text)
    return made.save(folder)
