"""Measures health now and then while a run goes on, and says aloud what it has not said before."""

import time
from collections.abc import Callable
from typing import Any

from mirada.doctor.diagnosis import HALF, diagnose
from mirada.doctor.health import Health
from mirada.objectives import Learner

__all__ = ["Watch"]

TIMES = 20  # measurements in a run
MOST = 20_000  # steps that are remembered; of a longer run every second, fourth, ... of those before
SHARE = 0.05  # of the run's time that all of them may take; fewer are made where one takes long, but for three


class Watch:
    """`after` goes after each step.

    Args:
        health: None where there is nothing to measure, as in supervised training: the rows are diagnosed all the same.
        rows: of the steps before, in a run that goes on.
        say: gets one sentence for each new alarm.
    """

    def __init__(
        self, learner: Learner, health: Health | None, rows: list[dict[str, Any]], say: Callable[[str], None]
    ) -> None:
        self.learner, self.health, self.rows, self.say = learner, health, thinned(rows), say
        self._said: set[str] = set()
        self._due, self._spent, self._longest = -1, 0.0, 0.0
        self._half = any(_measured(row) and row.get("progress", 0.0) >= HALF for row in self.rows)

    def after(self, row: dict[str, Any]) -> dict[str, float]:
        """What was measured after the step of `row`, which is nothing after most steps."""
        due = int(row["progress"] * TIMES)
        measured: dict[str, float] = {}
        affordable = self._spent + self._longest <= SHARE * row["seconds"]
        # Whatever it takes, since collapse shows in the latter half: its first, its last, and the very first.
        needed = self._due < 0 or row["progress"] >= 1 or (row["progress"] >= HALF and not self._half)
        if self.health is not None and due > self._due and (affordable or needed):
            begun = time.monotonic()
            measured = self.health.measure(self.learner)
            took = time.monotonic() - begun
            self._spent, self._longest = self._spent + took, max(self._longest, took)
            self._half = self._half or row["progress"] >= HALF
        judge = due > self._due
        self.rows.append(row | measured)
        if len(self.rows) > MOST:
            self.rows = thinned(self.rows)
        if judge:
            self._due = due
            for alarm in diagnose(self.rows):
                if alarm.name not in self._said:
                    self._said.add(alarm.name)
                    self.say(f"The doctor: {alarm.message} {alarm.advice}")
        return measured


def _measured(row: dict[str, Any]) -> bool:
    return any(key.startswith("health/") for key in row)


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST` of them: all that hold a measurement of health or a loss that is no number, and of the others as
    many even ones as there is room for."""
    while len(rows) > MOST:
        special = [row.get("loss", 0.0) is None or _measured(row) for row in rows]
        if sum(special) > MOST // 2:
            return rows
        rows = [row for number, (row, kept) in enumerate(zip(rows, special, strict=True)) if kept or number % 2]
    return list(rows)
