"""`mirada doctor` on runs that ended, failed, or never began."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirada.errors import MiradaError
from mirada.train.examine import examine


def a_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    config = {"format": 1, "command": "mirada train photos", "model": "vit-pico/8", "objective": "rotation"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rows(**values: Any) -> list[dict[str, Any]]:
    return [{"step": n + 1, "progress": (n + 1) / 50, "seconds": 0.1 * n, "loss": 1.2 - 0.01 * n,
             "rotation/relative_loss": 0.9 - 0.01 * n} | values for n in range(50)]  # fmt: skip


def test_a_healthy_run(tmp_path: Path) -> None:
    found = examine(str(a_run(tmp_path / "run", rows(**{"health/rank": 12.0}))))
    assert (found["healthy"], found["alarms"], found["steps"]) == (True, [], 50)
    assert found["measured"] == {"rotation/relative_loss": [0.9, pytest.approx(0.41)], "health/rank": [12.0, 12.0]}
    page = Path(found["page"]).read_text()
    assert "Nothing was found wrong" in page
    assert "Dimensions that features use (RankMe)" in page
    assert "mirada train photos" in page


def test_a_run_that_diverged(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", [*rows()[:20], {"step": 21, "progress": 0.4, "seconds": 2.0, "loss": None}])
    found = examine(str(run))
    assert [alarm["name"] for alarm in found["alarms"]] == ["not a number"]
    assert found["alarms"][0].keys() == {"name", "message", "advice"}
    assert "at step 21" in found["alarms"][0]["message"]
    page = Path(found["page"]).read_text()
    assert "1 thing is wrong with this run" in page
    assert "loss was not a finite number in 1 row" in page


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(MiradaError, match=r"There is no run in .*: name a folder that `mirada train` made"):
        examine(str(tmp_path))
    with pytest.raises(MiradaError, match=r"has made no step yet"):
        examine(str(a_run(tmp_path / "run", [])))


def test_a_verdict_needs_no_page(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", rows())
    (run / "doctor.html").mkdir()  # nothing can be written there
    found = examine(str(run))
    assert (found["healthy"], found["page"]) == (True, None)


@pytest.mark.parametrize(("text", "message"), [
    ("", "should be a table of settings"), ("a: [", "Cannot read"), ("format: 99", "written by a newer Mirada"),
])  # fmt: skip
def test_a_damaged_config(tmp_path: Path, text: str, message: str) -> None:
    run = a_run(tmp_path / "run", rows())
    (run / "config.yaml").write_text(text)
    with pytest.raises(MiradaError, match=message):
        examine(str(run))
