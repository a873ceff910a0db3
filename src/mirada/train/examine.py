"""What `mirada doctor` does: read a run's numbers, also of one that was stopped or failed, and say how it is."""

from contextlib import suppress
from math import isfinite
from typing import Any

from mirada.doctor.diagnosis import diagnose
from mirada.errors import MiradaError
from mirada.train.folder import RunFolder
from mirada.train.report import write_report
from mirada.train.settings import read_settings, read_text

__all__ = ["examine"]


def examine(run: str) -> dict[str, Any]:
    """Write `doctor.html` into the run's folder; returns what `mirada doctor --json` prints, with the first and the
    last value of everything that was measured of its health.

    Where the page cannot be written, as on a full disk, "page" is None.

    Raises:
        MiradaError: the folder holds no run, one without a step, or one whose config is damaged.
    """
    folder = RunFolder(run)
    if not folder.config.is_file() or not folder.metrics.is_file():
        raise MiradaError(f"There is no run in {run}: name a folder that `mirada train` made.")
    rows = folder.rows()
    if not rows:
        raise MiradaError(f"The run in {run} has made no step yet: ask again when it has.")
    text = read_text(folder.config)
    config = read_settings(text, str(folder.config))
    alarms = diagnose(rows)
    facts: dict[str, Any] = {
        key: config[key] for key in ("model", "objective", "batch", "precision", "machine") if key in config
    }
    summary = {"steps": rows[-1]["step"], "seconds": rows[-1].get("seconds", 0.0), **facts}
    page: str | None = None
    with suppress(OSError, MiradaError):
        page = str(write_report(
            folder.path / "doctor.html", title=folder.path.name, command=str(config.get("command", "")),
            summary=summary, metrics=rows, config_text=text,
        ))  # fmt: skip
    return {
        "run": str(folder.path), "healthy": not alarms, "alarms": [alarm._asdict() for alarm in alarms],
        "steps": rows[-1]["step"], "measured": first_and_last(rows), "page": page,
    }  # fmt: skip


def first_and_last(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """{name: [first, last]} of health, and of each term's relative loss."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            wanted = key.startswith("health/") or key.endswith("/relative_loss")
            if wanted and isinstance(value, (int, float)) and isfinite(value):
                found.setdefault(key, [value, value])[1] = value
    return found
