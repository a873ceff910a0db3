"""Every rule speaks for the course it is about, and for that one only."""

from typing import Any

import pytest

from mirada.doctor.diagnosis import RULES, diagnose

HEALTHY: dict[str, Any] = {
    "loss": 3.0, "dino/relative_loss": 0.6, "simclr/relative_loss": 0.5, "simclr/others": 254.0,
    "health/image_deviation": 0.8, "health/feature_deviation": 0.7, "health/rank": 30.0,
    "health/dino_entropy": 0.3, "health/dino_information": 0.5, "health/dino_prototypes": 0.4,
    "clip/relative_loss": 0.5, "clip/logit_scale": 20.0, "clip/logit_bound": 100.0, "siglip/logit_scale": 117.0,
}  # fmt: skip

SICK = {
    "not a number": {"loss": None},
    "identical images": {"health/image_deviation": 0.0},
    "uniform collapse": {"health/dino_entropy": 0.999, "health/dino_information": 0.001},
    "one prototype": {"health/dino_entropy": 0.01, "health/dino_information": 0.001},
    "targets too sharp": {"health/dino_entropy": 0.001},
    "equal features": {"health/feature_deviation": 0.001, "health/rank": 1.2},
    "rank falling": {"health/rank": 3.0},
    "nothing learned": {"dino/relative_loss": 0.999},
    "diverging": {"dino/relative_loss": 1.7},
    "batch too small": {"simclr/others": 14.0},
    "too few steps": {},
    "temperature at its bound": {"clip/logit_scale": 100.0},
}


def course(change: dict[str, Any], upto: float = 1.0, steps: int = 80, since: float = 0.5) -> list[dict[str, Any]]:
    """A run that is healthy in its first half."""
    return [
        {"step": step + 1, "progress": (step + 1) / steps} | HEALTHY | (change if step >= since * steps else {})
        for step in range(round(upto * steps))
    ]


def test_a_healthy_course_raises_no_alarm() -> None:
    assert diagnose(course({})) == []
    assert diagnose([]) == []


def test_two_prototypes_of_many_are_one_disease_before_the_second_is_gone() -> None:
    """A DINO run on drawings whose centre never moved."""
    last = {"health/dino_entropy": 0.0243, "health/dino_information": 0.0148, "health/dino_prototypes": 0.0312}
    (alarm,) = diagnose(course(last))
    assert alarm.name == "one prototype"
    assert "(entropy 2.4% of ln(K)): they tell 1.5%" in alarm.message
    # Sure of each image, and of each another thing.
    assert diagnose(course({"health/dino_entropy": 0.02, "health/dino_information": 0.5})) == []


@pytest.mark.parametrize("name", SICK)
def test_each_disease_is_named_and_nothing_else(name: str) -> None:
    steps = 40 if name == "too few steps" else 80
    alarms = diagnose(course(SICK[name], steps=steps, since=0.2 if name == "targets too sharp" else 0.5))
    assert [alarm.name for alarm in alarms] == [name]
    assert alarms[0].message.endswith(".")
    assert alarms[0].advice.endswith((".", "?"))


def test_a_scale_that_began_at_its_bound_has_not_run_there() -> None:
    assert diagnose([row | {"clip/logit_scale": 100.0} for row in course({})]) == []


def test_answers_that_are_sure_because_they_know_are_healthy() -> None:
    """SwAV with an epsilon of 0.01 ends so in docs/objectives.md, where it has learned second best."""
    assert diagnose(course({"health/dino_entropy": 0.0665, "health/dino_information": 0.89}, since=0.0)) == []


def test_few_steps_are_foreseen_where_they_are_surely_few() -> None:
    (found,) = diagnose(course({}, upto=0.5, steps=20))
    assert found.message == "The run will make about 20 updates, too few to learn much."
    assert diagnose(course({}, upto=0.5, steps=40)) == []
    assert diagnose(course({}, steps=40))[0].message == "The run has made 40 updates, too few to learn much."


def test_every_rule_has_a_course() -> None:
    assert len(SICK) == len(RULES) + 2  # collapse and nothing_learned have two names each


@pytest.mark.parametrize("name", sorted(set(SICK) - {"not a number", "identical images", "batch too small"}))
def test_what_only_takes_time_is_not_called_a_disease_at_once(name: str) -> None:
    assert diagnose([row | SICK[name] for row in course({}, upto=0.2)]) == []


def test_what_was_overcome_is_no_alarm() -> None:
    sick = SICK["uniform collapse"] | SICK["equal features"] | SICK["nothing learned"]
    assert diagnose([row | (sick if row["progress"] < 0.5 else {}) for row in course({})]) == []


def test_one_odd_measurement_is_no_alarm() -> None:
    rows = course({})
    rows[-1] |= SICK["uniform collapse"] | SICK["rank falling"]
    assert diagnose(rows) == []


def test_a_collapse_is_not_also_called_nothing_learned() -> None:
    alarms = diagnose(course(SICK["uniform collapse"] | SICK["nothing learned"]))
    assert [alarm.name for alarm in alarms] == ["uniform collapse"]
    assert "ln(K) times 0.999" in alarms[0].message


def test_targets_that_become_sure_late_are_what_was_learned() -> None:
    assert diagnose(course(SICK["targets too sharp"], since=0.5)) == []


@pytest.mark.parametrize("name", ["uniform collapse", "one prototype", "equal features"])
def test_two_measurements_after_the_first_are_enough(name: str) -> None:
    """As in runs so short that health is measured three times."""
    keys = [key for key in HEALTHY if key.startswith("health/")]
    rows = [row | (SICK[name] if row["progress"] > 0.1 else {}) for row in course({})]
    measured = (1, 60, 80)
    rows = [row if row["step"] in measured else {key: row[key] for key in row if key not in keys} for row in rows]
    assert [alarm.name for alarm in diagnose(rows)] == [name]


def test_a_term_is_judged_whatever_the_last_batch_was() -> None:
    rows = course({"clip/others": 3.0})
    rows[-1] = {key: value for key, value in rows[-1].items() if not key.startswith("clip/")} | {"clip/others": 0.0}
    assert [alarm.name for alarm in diagnose(rows)] == ["batch too small"]


def test_runs_that_do_not_say_their_bound() -> None:
    rows = [{key: value for key, value in row.items() if key != "clip/logit_bound"}
            for row in course(SICK["temperature at its bound"])]  # fmt: skip
    assert [alarm.name for alarm in diagnose(rows)] == ["temperature at its bound"]
