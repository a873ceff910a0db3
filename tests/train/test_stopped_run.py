"""A run that was stopped: it is a model already, and goes on with what it was, alone in its folder."""

import errno
import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mirada
from mirada.errors import MiradaError
from mirada.train.folder import RunFolder
from mirada.train.loop import Step
from mirada.train.run import command_to_resume, train
from mirada.train.settings import Settings
from mirada.train.start import Monitor, Run

TINY = Settings(
    model="vit-pico/8(depth=2, drop_path=0.1)", image_size=24, batch=16, steps=12, precision="float32", ema=0.9,
    learning_rate=2e-3, validate=2,
)  # fmt: skip


def stopped_run(data: Path, out: Path, **changes: Any) -> Settings:
    """A run that Ctrl-C stopped after two steps of twelve; returns its settings."""

    class Stop(Monitor):
        def step(self, step: Step, images: int) -> None:  # noqa: ARG002
            if step.step == 2:
                signal.raise_signal(signal.SIGINT)

    settings = TINY.with_changes(changes, "test")
    with pytest.raises(KeyboardInterrupt):
        train(str(data), settings, out=str(out), monitor=Stop())
    return settings


def test_a_run_that_was_stopped_is_a_model_already(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = stopped_run(folder_of_shapes, tmp_path / "run")
    before = mirada.load(tmp_path / "run")
    assert before.provenance["steps"] == 2
    assert before.classes == ["blue", "green", "red"]
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)
    assert mirada.load(tmp_path / "run").provenance["steps"] == 12


def test_a_stopped_run_with_low_rank_changes_is_a_plain_model(folder_of_shapes: Path, tmp_path: Path) -> None:
    train(str(folder_of_shapes), TINY.with_changes({"steps": 1}, "test"), out=str(tmp_path / "start"))
    stopped_run(folder_of_shapes, tmp_path / "run", init=str(tmp_path / "start"), lora=2, checkpoint_minutes=0.0)
    assert mirada.load(tmp_path / "run").provenance["steps"] == 2
    result = train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"), resume=True)
    assert result["steps"] == 12


def test_data_that_changed_while_a_run_was_stopped(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    data = new_shapes(12)
    settings = stopped_run(data, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    for file in sorted((data / "red").glob("*.png"))[:4]:
        file.unlink()
    for file in sorted((data / "blue").glob("*.png")):
        Image.new("RGB", (24, 24), "white").save(file)
    notes: list[str] = []

    class Notes(Monitor):
        def note(self, text: str) -> None:
            notes.append(text)

    train(str(data), settings, out=str(tmp_path / "run"), resume=True, monitor=Notes())
    assert any("images to train on now, and there were" in note for note in notes)
    after = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert after["preprocess"] == config["preprocess"]  # the colours that the first part was trained with
    (data / "red").rename(data / "zebra")
    with pytest.raises(
        MiradaError, match="learned the classes 'blue', 'green', 'red', and the data have 'blue', 'gree"
    ):
        train(str(data), settings, out=str(tmp_path / "run"), resume=True)


def test_words_of_other_captions_are_not_those_of_the_run(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    data = new_shapes(12)
    for number, file in enumerate(sorted(data.rglob("*.png"))):
        file.with_suffix(".txt").write_text(f"picture {number} of a {file.parent.name} thing")
    settings = stopped_run(data, tmp_path / "run", objective="clip(depth=1, width=16, num_heads=2)")
    for file in data.rglob("*.txt"):
        file.write_text(file.read_text().replace("thing", "something else altogether"))
    with pytest.raises(MiradaError, match="learned its words from other captions"):
        train(str(data), settings, out=str(tmp_path / "run"), resume=True)


def test_a_file_system_without_locks_trains_all_the_same(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    train(str(folder_of_shapes), TINY.with_changes({"steps": 1}, "test"), out=str(tmp_path / "run"))


def test_a_run_interrupted_while_it_is_measured_is_a_model(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "measure", interrupt)
    settings = TINY.with_changes({"validate": 0}, "test")
    with pytest.raises(KeyboardInterrupt):
        train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    assert mirada.load(tmp_path / "run").provenance["steps"] == 12


def test_two_processes_do_not_train_in_one_folder(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = stopped_run(folder_of_shapes, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with (
        RunFolder(tmp_path / "run").held(),
        pytest.raises(MiradaError, match=r"A run is going on in .*: stop it, or wait"),
    ):
        train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)


def test_how_to_go_on_is_said_with_everything_that_is_no_setting(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notes: list[str] = []

    class Stop(Monitor):
        def note(self, text: str) -> None:
            notes.append(text)

        def step(self, step: Step, images: int) -> None:  # noqa: ARG002
            signal.raise_signal(signal.SIGINT)

    linked = tmp_path / "my pictures"
    linked.symlink_to(folder_of_shapes)
    with pytest.raises(KeyboardInterrupt):
        train("my pictures", TINY, out="run", device="cpu", strict=True, log=["tensorboard"], monitor=Stop())
    said = notes[-1].partition("To go on: ")[2]
    assert said == f"mirada train '{linked}' --out run --device cpu --strict --log tensorboard --resume"
    monkeypatch.setattr("mirada.train.run.processes", lambda: 2)
    assert command_to_resume("x", RunFolder("run"), []).startswith("torchrun --nproc-per-node 2 -m mirada train /")


def test_a_disk_with_room_for_the_model_alone_keeps_it(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise MiradaError(f"Cannot save {path} (full).")

    monkeypatch.setattr("mirada.train.run.save_checkpoint", full)
    with pytest.raises(MiradaError, match=r"Cannot save .* What was learned so far is in .*model\."):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"))
    assert mirada.load(tmp_path / "run").provenance["steps"] == 12


def test_metrics_that_find_no_room_are_no_traceback(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "append", full)
    with pytest.raises(MiradaError, match=r"Cannot write to .*run \(no space left on device\)"):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"))


def test_a_run_is_examined_as_often_as_if_it_had_not_stopped(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = stopped_run(folder_of_shapes, tmp_path / "run", validate=3, steps=4)  # the third step is due
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "val/accuracy" in row] == [1, 2, 3]


def test_a_run_that_started_from_another_goes_on_from_any_folder(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(str(folder_of_shapes), TINY.with_changes({"steps": 1}, "test"), out="start")
    settings = stopped_run(folder_of_shapes, tmp_path / "run", init="start")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)
    assert mirada.load(tmp_path / "run").provenance["init"] == "start"


def test_what_a_kill_left_half_written_goes(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = stopped_run(folder_of_shapes, tmp_path / "run")
    left = [tmp_path / "run" / "checkpoints" / ".last.safetensors.1.part", tmp_path / "run" / "model" / ".x.2.part"]
    for path in left:
        path.write_bytes(b"half")
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)
    assert not any(path.exists() for path in left)


def test_a_folder_that_fills_up_becomes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr("yaml.safe_dump", lambda *_, **__: "x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(MiradaError, match="Cannot write to"):
            folder.create(TINY, "data", [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not folder.config.exists()
    monkeypatch.undo()
    folder.create(TINY, "data", [])
