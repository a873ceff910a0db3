"""Metrics to where people already look: TensorBoard and Weights & Biases, when asked for."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mirada.errors import MiradaError, Misuse

__all__ = ["check_logs", "open_logs"]

Writer = Callable[[dict[str, Any]], None]


def check_logs(names: Sequence[str]) -> None:
    """Raise `MiradaError` for a name that is no log, or whose package is not installed."""
    for name in names:
        if name not in LOGS:
            raise Misuse(f"There is no log {name!r}: choose {' or '.join(LOGS)}.")
        if find_spec(name) is None:
            raise MiradaError(f"Logging to {name} needs a package more: `pip install 'mirada[log]'`.")


def open_logs(names: Sequence[str], run: Path) -> list[Writer]:
    """One writer for each."""
    return [LOGS[name](run) for name in names]


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


LOGS: dict[str, Callable[[Path], Writer]] = {"tensorboard": _tensorboard, "wandb": _wandb}
