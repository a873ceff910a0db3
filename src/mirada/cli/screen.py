"""What a person sees while a command works: one live line on stderr, with the time left."""

import math
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from mirada.cli.plain import print_json, shown
from mirada.train.loop import Step
from mirada.train.start import Monitor

__all__ = ["Screen", "accuracy_line", "print_json", "shown", "skipped_line"]

QUIET = 2.0  # seconds; where there is no terminal, what takes less is not worth a line
PACE = 50  # steps by which the time left is reckoned
BETWEEN = 15.0  # seconds from one such line to the next


class Screen(Monitor):
    """A Rich progress line; a plain line now and then where stderr is not a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        bar = BarColumn(16, table_column=Column(min_width=16))  # on a narrow terminal it is the text that is cut
        what, text = TextColumn("{task.description}"), TextColumn("{task.fields[text]}", markup=False)
        self._bar = Progress(what, bar, text, console=self.console, transient=True, redirect_stdout=False)
        self._task: TaskID | None = None
        self._job: tuple[str, int] | None = None  # what is being done, and of how many
        self._began = self._told = 0.0
        self._rate: float | None = None
        self._last: Step | None = None
        self._course: deque[tuple[float, float]] = deque(maxlen=PACE)  # progress and seconds of the last steps
        self._accuracy = ""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        self._begin(what, total)
        share = done / max(1, total)
        left = (time.monotonic() - self._began) * (1 / share - 1) if share else math.inf
        amount = f"{done:,} of {total:,}"
        if what.startswith("downloading"):  # counts bytes
            amount = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        self._draw(what, share, f"{_duration(left)}  {amount}" if done else "")

    def step(self, step: Step, images: int) -> None:
        self._begin("training", 0)
        speed = ""
        if self._last is not None and step.seconds > self._last.seconds:
            now = images / (step.seconds - self._last.seconds)
            self._rate = now if self._rate is None else 0.9 * self._rate + 0.1 * now
            speed = f"  {self._rate:,.0f} images/s"
        self._last = step
        # The last steps tell of those to come: earlier ones may have seen smaller images, or another machine.
        self._course.append((step.progress, step.seconds))
        progress, seconds = self._course[0] if len(self._course) > 1 else (0.0, 0.0)
        pace = (step.seconds - seconds) / max(step.progress - progress, 1e-9)
        left = pace * (1 - step.progress)
        own = next((f"  accuracy {value:.1%}" for key, value in step.scalars.items() if key.endswith("/accuracy")), "")
        text = f"step {step.step:,}  loss {step.scalars['loss']:.3f}{own}{self._accuracy}{speed}"
        self._draw("training", step.progress, f"{_duration(left)}  {text}")

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        score = [(key, value) for key, value in metrics.items() if key.endswith(("/accuracy", "/text_to_image/R@1"))]
        if score:
            key, value = score[0]
            self._accuracy = f"  {key.partition('/')[0]} {value:.1%}"
            self.note(f"step {step:,}: {key.replace('/', ' ').replace('_', ' ')} {value:.1%}")

    def _begin(self, what: str, total: int) -> None:
        """Start the clock of another job."""
        if (what, total) != self._job:
            self._job = (what, total)
            self._began = time.monotonic()
            self._told = -math.inf

    def _draw(self, what: str, share: float, text: str) -> None:
        if self.console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task(what, total=1.0, text=text)
                self._bar.start()
            self._bar.update(self._task, description=what, completed=share, text=text)
            return
        now = time.monotonic()
        if now - self._began >= QUIET and now - self._told >= BETWEEN and text and share < 1:
            self._told = now
            self.note(f"{what} {share:.0%}: {text}")


def _duration(seconds: float) -> str:
    if seconds == math.inf:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s") + " left"


def skipped_line(skipped: list[dict[str, str]]) -> str:
    """How many files took no part, and the first of them, which is there."""
    count, first = len(skipped), skipped[0]
    which = "1 file:" if count == 1 else f"{count:,} files; the first:"
    return f"skipped {which} {shown(first['path'])}: {first['reason']}"


def accuracy_line(name: str, share: float, count: int, interval: list[float]) -> str:
    """`val accuracy 81.0% of 60 images (95% interval 69.2% to 89.0%)`."""
    images = "1 image" if count == 1 else f"{count:,} images"
    return f"{name} {share:.1%} of {images} (95% interval {interval[0]:.1%} to {interval[1]:.1%})"
