"""Metrics to where people already look: TensorBoard and Weights & Biases, when asked for."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mirada.errors import MiradaError, Misuse

__all__ = ["Writer", "check_logs", "open_logs"]

Writer = Callable[[dict[str, Any]], None]


def check_logs(names: Sequence[str]) -> None:
    """Raise `MiradaError` for a name that is no log, or whose package is not installed."""
    for name in names:
        if name not in LOGS:
            raise Misuse(f"There is no log {name!r}: choose {' or '.join(LOGS)}.")
        if find_spec(name) is None:
            raise MiradaError(f"Logging to {name} needs a package more: `pip install 'mirada[log]'`.")


def open_logs(names: Sequence[str], run: Path, step: int) -> list[Writer]:
    """One writer for each, of a run that has made `step` updates. TensorBoard drops what was written of later ones;
    W&B begins another run."""
    return [LOGS[name](run, step) for name in names]


def _tensorboard(run: Path, step: int) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(row: dict[str, Any]) -> None:
        for key, value in row.items():
            if key != "step":
                writer.add_scalar(key, value, row["step"])
        writer.flush()

    return write


def _wandb(run: Path, step: int) -> Writer:
    import wandb

    del step
    wandb.init(project="mirada", name=run.name, dir=str(run))

    def write(row: dict[str, Any]) -> None:
        wandb.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])

    return write


LOGS: dict[str, Callable[[Path, int], Writer]] = {"tensorboard": _tensorboard, "wandb": _wandb}
