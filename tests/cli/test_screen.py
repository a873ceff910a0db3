"""What is shown while a command works, with and without a terminal."""

import io
import json
import math
import os

import pytest
from rich.console import Console

from mirada.cli import models, screen
from mirada.cli.screen import Screen, accuracy_line, print_json, shown, skipped_line
from mirada.train.loop import Step


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(screen, "time", made)
    return made


def on(terminal: bool, width: int = 80) -> tuple[Screen, io.StringIO]:
    made, file = Screen(), io.StringIO()
    made.console = Console(file=file, force_terminal=terminal, width=width, highlight=False, _environ={})
    made._bar.live.console = made.console
    return made, file


def step(number: int, of: int, seconds: float) -> Step:
    return Step(number, number / of, seconds, {"loss": 1.2345, "supervised/accuracy": 0.5, "learning_rate": 0.1})


def test_without_a_terminal_short_work_says_nothing(clock: Clock) -> None:
    made, file = on(terminal=False)
    with made:
        for number in range(10):
            made.progress("measuring", number + 1, 10)
            clock.now += 0.1
    assert file.getvalue() == ""


def test_without_a_terminal_long_work_says_something_now_and_then(clock: Clock) -> None:
    made, file = on(terminal=False)
    with made:
        for number in range(41):
            made.progress("reading images", number, 40)
            clock.now += 1
    assert file.getvalue().splitlines() == [
        "reading images 5%: 38s left  2 of 40",
        "reading images 42%: 23s left  17 of 40",
        "reading images 80%: 8s left  32 of 40",
    ]


def test_another_job_of_the_same_name_has_its_own_clock(clock: Clock) -> None:
    made, file = on(terminal=False)
    for total in (100, 50):
        for done in range(0, total, 10):
            made.progress("reading images", done, total)
            clock.now += 1
    assert file.getvalue().splitlines() == [
        "reading images 20%: 8s left  20 of 100",
        "reading images 40%: 3s left  20 of 50",
    ]


def test_training_says_loss_speed_and_time_left(clock: Clock) -> None:
    made, file = on(terminal=False)
    made.step(step(1, 1000, 4.0), 128)
    clock.now += 3
    made.step(step(2, 1000, 6.0), 128)
    made.measured(2, {"val/accuracy": 0.25, "val/balanced_accuracy": 0.1, "val/loss": 2.0})
    clock.now += 20
    made.step(step(500, 1000, 4000.0), 128)
    assert file.getvalue().splitlines() == [
        "training 0%: 33m16s left  step 2  loss 1.234  accuracy 50.0%  64 images/s",
        "step 2: val accuracy 25.0%",
        "training 50%: 1h06m left  step 500  loss 1.234  accuracy 50.0%  val 25.0%  58 images/s",
    ]


def test_the_time_left_is_that_of_the_last_steps(clock: Clock) -> None:
    """Earlier ones may have seen smaller images, or another machine before the run was stopped."""
    made, file = on(terminal=False)
    for number in range(1, 151):
        clock.now += 15
        made.step(step(number, 200, 1.0 * min(number, 100) + 4.0 * max(0, number - 100)), 128)
    assert file.getvalue().splitlines()[-1].startswith("training 75%: 3m20s left")
    resumed, file = on(terminal=False)
    for number in (100, 101):
        clock.now += 15
        resumed.step(step(number, 200, 4000.0 + number), 128)
    assert file.getvalue().splitlines()[-1].startswith("training 50%: 1m39s left")


def test_a_terminal_gets_one_live_line_that_is_gone_at_the_end() -> None:
    made, file = on(terminal=True, width=60)
    with made:
        made.step(step(1, 4, 4.0), 128)
        made.step(step(2, 4, 6.0), 128)
        made.note("[bold]a file's name[/bold]")
        made._bar.refresh()
    text = file.getvalue()
    assert "training" in text
    assert "4s left  step 2" in text
    assert "[bold]a file's name[/bold]" in text
    assert text.endswith("\x1b[1A\x1b[2K")


def test_nothing_is_drawn_for_nothing() -> None:
    for terminal in (True, False):
        made, file = on(terminal)
        with made:
            pass
        assert file.getvalue() == ""


def test_lines_for_people() -> None:
    line = accuracy_line("val accuracy", 0.5, 1234, [0.4721, 0.5279])
    assert line == "val accuracy 50.0% of 1,234 images (95% interval 47.2% to 52.8%)"
    assert " of 1 image (" in accuracy_line("accuracy", 1.0, 1, [0.2, 1.0])
    assert [shown(text) for text in ("ñandú 目.png", "a\nb", "\x1b[2J")] == ["ñandú 目.png", r"'a\nb'", r"'\x1b[2J'"]
    counts = [261_952, 999_400, 1_313_664, 21_665_664, 303_301_632, 999_900_000, 9_323_934_872]
    assert [models._count(count) for count in counts] == ["262K", "999K", "1.31M", "21.7M", "303M", "1.00B", "9.32B"]


def test_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": math.nan, "bounds": (1.0, math.inf), "name": "ñ", "path": os.fsdecode(b"\xe9"), "n": 1})
    text = capsys.readouterr().out
    assert json.loads(text) == {"loss": None, "bounds": [1.0, None], "name": "ñ", "path": "\udce9", "n": 1}
    print_json(["ñ"])
    assert capsys.readouterr().out == '["ñ"]\n'


def test_skipped_files_are_counted() -> None:
    one = {"path": "a.png", "reason": "the file is empty"}
    assert skipped_line([one]) == "skipped 1 file: a.png: the file is empty"
    assert skipped_line([one, one]) == "skipped 2 files; the first: a.png: the file is empty"
