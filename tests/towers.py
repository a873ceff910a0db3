"""A tiny model with two towers and random weights."""

from typing import Any

import torch

from mirada.backbones import build
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign

TEXT: dict[str, Any] = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "dim": 24}


def make_model(seed: int = 0, words: bool = True) -> Model:
    torch.manual_seed(seed)
    name = "vit-pico/8(image_size=24, depth=1)"
    text = TextDesign(**TEXT) if words else None
    return Model(name, build(name), Preprocess(size=(24, 24)), projection=Projection(24), text=text).eval()
