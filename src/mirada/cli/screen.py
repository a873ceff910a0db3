"""What a person sees while a command works: one live line on stderr, with the time left."""

import json
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from mirada.train.loop import Step
from mirada.train.run import Monitor

__all__ = ["Screen", "print_json"]


class Screen(Monitor):
    """A Rich progress line; a plain line now and then where stderr is not a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}"),
            console=self.console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._what = ""
        self._began = self._told = time.monotonic()
        self._rate: float | None = None
        self._last: Step | None = None
        self._accuracy = ""

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        share = done / max(1, total)
        if what != self._what:
            self._began = self._told = time.monotonic()
        left = (time.monotonic() - self._began) * (1 / share - 1) if share else 0.0
        self._draw(what, share, f"{done:,} of {total:,}, {_duration(left)} left")

    def step(self, step: Step, images: int) -> None:
        if self._last is not None and step.seconds > self._last.seconds:
            now = images / (step.seconds - self._last.seconds)
            self._rate = now if self._rate is None else 0.9 * self._rate + 0.1 * now
        self._last = step
        left = step.seconds * (1 / step.progress - 1)
        own = next((f"  accuracy {value:.1%}" for key, value in step.scalars.items() if key.endswith("/accuracy")), "")
        text = f"step {step.step:,}  {self._rate or 0:,.0f} images/s  loss {step.scalars['loss']:.3f}{own}"
        self._draw("training", step.progress, f"{text}{self._accuracy}  {_duration(left)} left")

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        accuracy = [(key, value) for key, value in metrics.items() if key.endswith("/accuracy")]
        if accuracy:
            key, value = accuracy[0]
            self._accuracy = f"  {key.partition('/')[0]} {value:.1%}"
            self.note(f"step {step:,}: {key.replace('/', ' ')} {value:.1%}")

    def _draw(self, what: str, share: float, text: str) -> None:
        if not self.console.is_terminal:
            if what == self._what and time.monotonic() - self._told < 15:
                return
            self._what, self._told = what, time.monotonic()
            self.note(f"{what} {share:.0%}: {text}")
            return
        if self._task is None or what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._what = what
            self._task = self._bar.add_task(what, total=1.0, text=text)
        self._bar.update(self._task, completed=share, text=text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False))
