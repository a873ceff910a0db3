"""Metrics to where people already look: TensorBoard and Weights & Biases, when asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mirada.errors import MiradaError

__all__ = ["open_logs"]

Writer = Callable[[dict[str, Any]], None]


def open_logs(names: Sequence[str], run: Path) -> list[Writer]:
    """One writer for each of "tensorboard" and "wandb"; a missing package says what to install."""
    return [_open(name, run) for name in names]


def _open(name: str, run: Path) -> Writer:
    try:
        if name == "tensorboard":
            return _tensorboard(run)
        if name == "wandb":
            return _wandb(run)
    except ImportError as error:
        raise MiradaError(f"Logging to {name} needs a package more: `pip install 'mirada[log]'`.") from error
    raise MiradaError(f"There is no log {name!r}: choose tensorboard or wandb.")


def _tensorboard(run: Path) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    def write(row: dict[str, Any]) -> None:
        for key, value in row.items():
            if key != "step":
                writer.add_scalar(key, value, row["step"])
        writer.flush()

    return write


def _wandb(run: Path) -> Writer:
    import wandb

    wandb.init(project="mirada", name=run.name, dir=str(run))

    def write(row: dict[str, Any]) -> None:
        wandb.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])

    return write
