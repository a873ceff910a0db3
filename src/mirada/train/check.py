"""What can be known to be wrong with a run before any image is read, which may take minutes."""

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from mirada.backbones import build, canonical
from mirada.errors import MiradaError, Misuse, blame_the_command
from mirada.objectives import Learner
from mirada.train.settings import Settings

__all__ = ["check_logs", "check_network"]

LOGS = ("tensorboard", "wandb")


def check_network(given: str | None, settings: Settings) -> str:
    """Build the given network, or else that of the settings, without memory, and its objectives; send images of the
    settings' sizes through it. Returns its full name."""
    with blame_the_command():
        name = given or canonical(settings.model, image_size=settings.image_size)
        with torch.device("meta"):
            backbone = build(name).eval()
            for side in {settings.image_size, settings.early_size or settings.image_size}:
                backbone(torch.empty(1, 3, side, side))
        Learner(backbone, settings.objective, classes=2, augment=settings.augment)
    return name


def check_logs(names: Sequence[str]) -> None:
    """Whether each is a log, and installed."""
    for name in names:
        if name not in LOGS:
            raise Misuse(f"There is no log {name!r}: choose {' or '.join(LOGS)}.")
        if find_spec(name) is None:
            raise MiradaError(f"Logging to {name} needs a package more: `pip install 'mirada[log]'`.")
