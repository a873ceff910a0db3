"""The page of objectives says what its records say, also where that is no success."""

from pathlib import Path
from typing import Any

import pytest
import self_supervised
from self_supervised import baselines, draw, short, sums, tables

SUM = "rotation + jigsaw"


def row(objective: str, linear: float, budget: str = "5m", **others: Any) -> dict[str, Any]:
    still = objective in ("pixels", "untrained")
    return {
        "data": "shapes", "library": "mirada 1", "objective": objective, "model": "vit", "image_size": 32, "batch": 64,
        "flags": "", "budget": "" if still else budget, "seed": 0, "steps": 9, "images": 99, "knn": linear - 10,
        "linear": linear, "measured": 100, "alarms": [], "machine": "this one",
    } | others  # fmt: skip


STILL = [row("untrained", 30.0), row("pixels", 20.0, knn=45.0)]
TRAINED = [row("rotation", 50.0), row("jigsaw(orders=9)", 60.0), row("jigsaw", 40.0), row(SUM, 45.0)]


def test_the_best_of_a_sums_terms_is_what_it_is_compared_with() -> None:
    (found, _) = sums(TRAINED)
    assert "does not beat" in found
    assert "45.0 against 50.0 of `rotation`" in found
    (found, _) = sums([*TRAINED[:3], row(SUM, 55.0)])
    assert " beats the best" in found
    assert " is level with the best" in sums([*TRAINED[:3], row(SUM, 50.5)])[0]
    assert sums([row("rotation", 50.0), row(SUM, 45.0)]) == []  # jigsaw alone is missing
    assert "one machine" not in found
    (found, _) = sums([*TRAINED[:3], row(SUM, 55.0, machine="that one")])
    assert found.endswith("They were not all trained on one machine.")
    (found, _) = sums([*TRAINED, row(SUM, 55.0, machine="that one")])
    assert "does not beat" in found


def test_what_does_not_beat_the_pixels_is_named() -> None:
    (found, _) = baselines([*TRAINED, row("simclr", 29.0, library="lightly 2")], STILL)
    assert "By the linear probe, all but lightly: `simclr` beat" in found
    assert "By nearest neighbours, only `jigsaw` beat both" in found
    assert "all beat both the untrained network and the pixels" in baselines(TRAINED[1:2], [STILL[0]])[0]


def test_options_that_make_another_method_stay_in_a_short_name() -> None:
    assert short("dino(first={'base': 'dino'}, small=0)") == "dino"
    assert short("masked(method='mae') + 0.5*rotation(augment={'base': 'dino'})") == "masked(mae) + 0.5*rotation"


def test_settings_are_listed_once_below_the_table() -> None:
    text = "\n".join(tables([row("dino(small=0)", 50.0), row("dino(small=0)", 51.0, "20m"), row("rotation", 9.0)]))
    assert text.count("| `dino` <sup>1</sup> | mirada 1 |") == 2
    assert text.count("1. `dino(small=0)`\n\nAccuracy in percent") == 2
    assert "2. " not in text


def test_every_seed_of_a_row_is_in_its_mean() -> None:
    text = "\n".join(tables([*STILL, row("rotation", 50.0), row("rotation", 52.0, seed=1)]))
    assert "| `rotation` | mirada 1 | 51.0 ± 1.4 | 41.0 ± 1.4 | 99 | 2 | none |" in text
    assert "over seeds (0, 1)" in text


def test_rows_of_another_machine_are_marked_and_compared_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [row("rotation", 52.0, machine="that one"), row("jigsaw", 41.0, "20m", machine="that one")]
    text = "\n".join(tables([*STILL, *TRAINED, *slow]))
    assert "| `rotation` | mirada 1 | 50.0 |" in text
    assert "| `rotation` <sup>2</sup> | mirada 1 | 52.0 |" in text
    assert "2. `rotation`, on machine 2" in text
    assert "Machines: (1) this one; (2) that one." in text
    assert "45.0 against 50.0 of `rotation`" in text
    monkeypatch.setattr(self_supervised, "PICTURE", tmp_path / "objectives.svg")
    assert not draw([*STILL, *TRAINED, *slow])


def test_curves_are_drawn_of_what_was_trained_for_several_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_supervised, "PICTURE", tmp_path / "images" / "objectives.svg")
    assert not draw([*STILL, *TRAINED])
    assert draw([*STILL, *TRAINED, row(SUM, 50.0, "20m"), row("rotation", 51.0, "20m")])
    drawn = self_supervised.PICTURE.read_text(encoding="utf-8")
    assert f"<!-- the sum of {SUM.count(' + ') + 1} -->" in drawn
    assert "<!-- rotation -->" in drawn
    assert "<!-- jigsaw -->" not in drawn  # alone it was trained for one length only
    assert "<!-- untrained or pixels -->" in drawn
    assert draw([*TRAINED, row(SUM, 50.0, "20m")])  # nobody has measured what is to beat
    assert "untrained" not in self_supervised.PICTURE.read_text(encoding="utf-8")
