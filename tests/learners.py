"""A small Learner and a batch for it, with labels and captions."""

import torch

from mirada.backbones import build
from mirada.data.samples import Samples
from mirada.objectives import Learner, Pairs

__all__ = ["CAPTIONS", "FACTS", "learner", "samples"]

CAPTIONS = [(f"picture {number}", f"imagen {number}") for number in range(8)]
FACTS = {"classes": 5, "augment": "light", "pairs": Pairs(CAPTIONS)}


def samples(count: int = 8, labelled: bool = True, seed: int = 2, size: tuple[int, int] = (16, 16)) -> Samples:
    generator = torch.Generator().manual_seed(1)
    canvases = torch.randint(0, 256, (count, 3, 20, 20), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 5 if labelled else torch.full((count,), -1)
    half = torch.full((3,), 0.5)
    return Samples(
        canvases, torch.ones(count), labels, size=size, seed=seed, mean=half, std=half, captions=CAPTIONS[:count]
    )


def learner(text: str, model: str = "vit-pico/4(depth=1, image_size=16)", **facts: object) -> Learner:
    torch.manual_seed(0)
    return Learner(build(model), text, **(FACTS | facts))
