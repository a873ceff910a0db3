"""What can be known to be wrong with a run before any image is read, which may take minutes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mirada.backbones import build, canonical, require_colour
from mirada.backbones.vit import ViT
from mirada.checkpoints.published import published_family
from mirada.data.samples import Samples
from mirada.device import without_values
from mirada.errors import MiradaError, blame_the_command
from mirada.model import Model
from mirada.objectives import Learner, Pairs
from mirada.train.freeze import freeze
from mirada.train.settings import Settings

__all__ = ["check_network"]


def check_network(start: Model | None, settings: Settings) -> str:
    """Build the network of the model to start from, or else that of the settings, without memory, and its objectives;
    send images of the settings' sizes through it, and let the objectives view some. Returns its full name."""
    with blame_the_command():
        if start is None and published_family(settings.model) is not None:
            raise MiradaError(f"{settings.model} is a published model, to start from: write --init {settings.model} "
                              "and no model.")  # fmt: skip
        name = start.architecture if start else canonical(settings.model, image_size=settings.image_size)
        require_colour(name)
        sides = dict.fromkeys((settings.image_size, settings.early_size or settings.image_size))
        with without_values():
            backbone = build(name).eval()
            for side in sides:
                with blame_early_size(side, settings.image_size):
                    images = torch.empty(1, 3, side, side)
                    if isinstance(backbone, ViT) and start is None:  # a loaded one may leave pixels over
                        backbone.require_multiple(images, backbone.stride, "patches")
                    backbone(images)
        freeze(backbone, settings.freeze)
        facts = {"classes": 2, "augment": settings.augment, "pairs": Pairs([("a picture",)], start)}
        learner = Learner(backbone, settings.objective, balance=settings.balance, **facts)
        whole = [name for name, objective in learner.terms() if not objective.divisible]
        if settings.parts > 1 and whole:
            raise MiradaError(f"{whole[0]} looks at all images of a batch at once, and chunks divide it: leave chunk "
                              "out, and use a smaller batch instead.")  # fmt: skip
        for side in sides:  # some objectives need room for tiles
            half = torch.full((3,), 0.5)
            canvases = torch.zeros(2, 3, side, side, dtype=torch.uint8)
            with blame_early_size(side, settings.image_size):
                learner.views(Samples(canvases, torch.ones(2), torch.zeros(2).long(), size=(side, side), seed=0,
                                      mean=half, std=half))  # fmt: skip
    return name


@contextmanager
def blame_early_size(side: int, image_size: int) -> Iterator[None]:
    """A mistake with images of the size that only a recipe sets is put down to that setting."""
    try:
        yield
    except MiradaError as error:
        if side == image_size:
            raise
        raise MiradaError(f"Images begin with the recipe's early_size, {side} pixels: {error}") from error
