"""The watch measures now and then, within its share of the time, and says each thing once."""

from typing import Any

import pytest
import torch

import mirada.doctor.watch as module
from mirada.backbones import build
from mirada.doctor.health import Health
from mirada.doctor.watch import TIMES, Watch
from mirada.objectives import Learner


def rows(steps: int, each: float = 10.0, **values: Any) -> list[dict[str, Any]]:
    return [{"step": n + 1, "progress": (n + 1) / steps, "seconds": each * (n + 1), "loss": 1.0} | values
            for n in range(steps)]  # fmt: skip


def watch(said: list[str], before: list[dict[str, Any]] | None = None, images: bool = True) -> Watch:
    learner = Learner(build("vit-pico/4(depth=1, image_size=16)"), "rotation")
    health = Health(torch.randn(4, 3, 16, 16), torch.full((4,), -1)) if images else None
    return Watch(learner, health, before or [], said.append)


def test_it_measures_so_many_times_with_the_first_and_the_last_step_among_them() -> None:
    one = watch([])
    found = [bool(one.after(row)) for row in rows(100)]
    assert found[0]
    assert found[-1]
    assert sum(found) == TIMES + 1


def test_it_keeps_to_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: 5.0 * next(clock))  # each measurement takes five seconds
    one = watch([])
    found = [bool(one.after(row)) for row in rows(100, each=2.0)]
    assert found[0]
    assert found[-1]
    assert 5 * (sum(found) - 1) <= 0.05 * 200


def test_the_latter_half_of_a_short_run_is_looked_at_twice_whatever_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: 5.0 * next(clock))
    one, course = watch([]), rows(10, each=1.0)
    assert [row["step"] for row in course if one.after(row)] == [1, 5, 10]
    before = [row | ({"health/rank": 3.0} if row["step"] in (1, 5) else {}) for row in course[:5]]
    again = watch([], before)
    assert [row["step"] for row in course[5:] if again.after(row)] == [6, 10]


def test_it_says_a_thing_once() -> None:
    said: list[str] = []
    one = watch(said, images=False)
    for row in rows(100, **{"simclr/relative_loss": 0.5, "simclr/others": 6.0}):
        assert one.after(row) == {}
    assert said == [said[0]]
    assert said[0].startswith("The doctor: simclr tells each image apart from 6 others only. Use a larger --batch")


def test_a_run_that_goes_on_remembers_the_steps_before() -> None:
    said: list[str] = []
    healthy = {"health/image_deviation": 1.0, "rotation/relative_loss": 0.9}
    before = [row | healthy | {"health/rank": 30.0} for row in rows(100)][:50]
    one = watch(said, before, images=False)
    for row in rows(100)[50:]:
        one.after(row | healthy | {"health/rank": 3.0})
    assert said == ["The doctor: Features use 3.0 dimensions (RankMe), down from 30.0. Lower the learning rate, train "
                    "for less long, or add dino(koleo=0.1) against it."]  # fmt: skip


def test_a_long_run_is_remembered_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    rows: list[dict[str, Any]] = [{"step": step, "loss": 1.0} for step in range(1000)]
    rows[1] |= {"health/rank": 3.0}
    rows[3] |= {"loss": None}
    kept = module.thinned(rows)
    assert len(kept) <= 100
    assert rows[1] in kept
    assert rows[3] in kept
    assert [row["step"] for row in kept] == sorted(row["step"] for row in kept)
    assert kept[-1]["step"] > 980
    assert module.thinned(rows[:50]) == rows[:50]
