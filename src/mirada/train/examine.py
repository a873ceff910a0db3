"""What `mirada doctor` does: read a run's numbers, also of one that was stopped or failed, and say how it is."""

from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from mirada.doctor.diagnosis import diagnose
from mirada.errors import MiradaError
from mirada.train.folder import RunFolder
from mirada.train.report import write_report

__all__ = ["examine"]


def examine(run: str) -> dict[str, Any]:
    """Write `doctor.html` into the run's folder; returns what `mirada doctor --json` prints, with the first and the
    last value of everything that was measured of its health.

    Raises:
        MiradaError: the folder holds no run, or one without a step.
    """
    folder = RunFolder(run)
    if not folder.config.is_file() or not folder.metrics.is_file():
        raise MiradaError(f"There is no run in {run}: name a folder that `mirada train` made.")
    rows = folder.rows()
    if not rows:
        raise MiradaError(f"The run in {run} has made no step yet: ask again when it has.")
    text = folder.config.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    alarms = diagnose(rows)
    facts = {key: config[key] for key in ("model", "objective", "batch", "precision", "machine") if key in config}
    summary = {"steps": rows[-1]["step"], "seconds": rows[-1].get("seconds", 0.0), **facts}
    page: Path = write_report(
        folder.path / "doctor.html", title=folder.path.name, command=str(config.get("command", "")), summary=summary,
        metrics=rows, config_text=text,
    )  # fmt: skip
    return {
        "run": str(folder.path), "healthy": not alarms, "alarms": [alarm._asdict() for alarm in alarms],
        "steps": rows[-1]["step"], "measured": first_and_last(rows), "page": str(page),
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
