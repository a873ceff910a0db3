"""What can be known to be wrong with a run before any image is read, which may take minutes."""

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from mirada.backbones import build
from mirada.errors import MiradaError, Misuse, blame_the_command
from mirada.objectives import Learner
from mirada.train.settings import Settings

__all__ = ["check_logs", "check_network"]

LOGS = ("tensorboard", "wandb")


def check_network(name: str, settings: Settings) -> None:
    """Build the network and its objectives without memory, and send images of the settings' sizes through it."""
    with blame_the_command():
        with torch.device("meta"):
            backbone = build(name).eval()
            for side in {settings.image_size, settings.early_size or settings.image_size}:
                backbone(torch.empty(1, 3, side, side))
        Learner(backbone, settings.objective, classes=2, augment=settings.augment)


def check_logs(names: Sequence[str]) -> None:
    """Whether each is a log, and installed."""
    for name in names:
        if name not in LOGS:
            raise Misuse(f"There is no log {name!r}: choose {' or '.join(LOGS)}.")
        if find_spec(name) is None:
            raise MiradaError(f"Logging to {name} needs a package more: `pip install 'mirada[log]'`.")
