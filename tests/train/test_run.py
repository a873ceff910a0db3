"""Runs on real files: they learn, they can be killed and go on bit for bit, and they say what is wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import mirada
from mirada.backbones.vit import ViT
from mirada.errors import MiradaError
from mirada.precision import choose_precision
from mirada.saving import save_atomically
from mirada.train.average import Average
from mirada.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from mirada.train.run import train
from mirada.train.settings import Settings
from mirada.train.start import Monitor, Run

TINY = Settings(
    model="vit-pico/8(depth=2, drop_path=0.1)", image_size=24, batch=16, steps=12, precision="float32", ema=0.9,
    learning_rate=2e-3, validate=2,
)  # fmt: skip


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_everything(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = TINY.with_changes({"steps": 60, "objective": "supervised + 0.1*rotation"}, "test")
    result = train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), command=["mirada", "train", "x"])
    assert result["metrics"]["val/accuracy"] >= 0.9
    assert result["interval"][0] <= result["metrics"]["val/accuracy"] <= result["interval"][1]
    assert (result["steps"], result["images"], result["skipped"]) == (60, 960, [])
    run = tmp_path / "run"
    assert {entry.name for entry in run.iterdir()} == {
        "config.yaml",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "report.html",
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert sum("val/accuracy" in row for row in rows) == 2
    model = mirada.load(run)
    assert model.classes == ["blue", "green", "red"]
    file = next((folder_of_shapes / "green").iterdir())
    assert model.classes[int(model.logits(file).argmax())] == "green"


def test_the_same_seed_gives_the_same_run(folder_of_shapes: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / name))
    train(str(folder_of_shapes), TINY.with_changes({"seed": 1}, "test"), out=str(tmp_path / "c"))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_killed_without_warning_goes_on_bit_for_bit(
    folder_of_shapes: Path, tmp_path: Path, optimiser: str
) -> None:
    settings = TINY.with_changes({"optimiser": optimiser, "checkpoint_minutes": 0.0, "steps": 40}, "test")
    train(str(folder_of_shapes), settings, out=str(tmp_path / "whole"))
    script = (
        "import sys; from mirada.train.run import train; from mirada.train.settings import Settings, read_recipe\n"
        "import torch; torch.set_num_threads(int(sys.argv[4]))\n"
        "train(sys.argv[1], Settings().with_changes(read_recipe(sys.argv[2]), 'test'), out=sys.argv[3])"
    )
    import yaml

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings.to_dict()))
    killed = tmp_path / "killed"
    threads = str(torch.get_num_threads())
    child = subprocess.Popen([sys.executable, "-c", script, str(folder_of_shapes), str(recipe), str(killed), threads])
    metrics = killed / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 9) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 9 <= metrics.read_text().count("\n") < 40
    train(str(folder_of_shapes), Settings(), out=str(killed), resume=True)
    assert losses(killed) == losses(tmp_path / "whole")
    whole, resumed = (safetensors.torch.load_file(tmp_path / run / "model" / "model.safetensors")
                      for run in ("whole", "killed"))  # fmt: skip
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_ctrl_c_saves_and_resumes(folder_of_shapes: Path, tmp_path: Path) -> None:
    class Impatient(Monitor):
        def step(self, step: Any, images: int) -> None:  # noqa: ARG002
            if step.step == 5:
                os.kill(os.getpid(), signal.SIGINT)

    train(str(folder_of_shapes), TINY, out=str(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"), monitor=Impatient())
    assert len(losses(tmp_path / "run")) == 5
    train("", Settings(), out=str(tmp_path / "run"), resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_budget_ends_on_time(folder_of_shapes: Path, tmp_path: Path) -> None:
    train(str(folder_of_shapes), TINY.with_changes({"steps": 1}, "test"), out=str(tmp_path / "first"))  # imports
    settings = TINY.with_changes({"budget": 2.0}, "test")
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    state = read_state(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert state["reading"] + rows[-1]["seconds"] == pytest.approx(2.0, abs=1.0)
    assert rows[-1]["learning_rate"] < 0.1 * max(row["learning_rate"] for row in rows)
    assert all(a["progress"] < b["progress"] for a, b in pairwise(rows))


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = TINY.with_changes(
        {"learning_rate": 1e20, "clip": None, "checkpoint_minutes": 0.0, "warmup": 0.5}, "test"
    )
    with pytest.raises(
        MiradaError, match=r"at step \d+: try a lower --lr.* is in .*run/model: start from it with --init"
    ):
        train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    saved = safetensors.torch.load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())
    assert mirada.load(tmp_path / "run").provenance["steps"] >= 1


@pytest.mark.parametrize("objective", ["supervised", "simclr(distortion='none')"])
def test_chunks_give_the_gradient_of_the_whole_batch(objective: str, folder_of_shapes: Path, tmp_path: Path) -> None:
    plain = TINY.with_changes(
        {"augment": "none", "model": "vit-pico/8(depth=1)", "steps": 4, "objective": objective}, "test"
    )
    train(str(folder_of_shapes), plain, out=str(tmp_path / "a"))
    train(str(folder_of_shapes), plain.with_changes({"chunk": 4}, "test"), out=str(tmp_path / "b"))
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-4)


def test_looking_at_the_terms_of_a_sum_leaves_no_trace_in_a_run_by_chunks(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TINY.with_changes(
        {"model": "vit-pico/8(depth=1)", "steps": 4, "chunk": 4, "objective": "rotation + colorization"}, "test"
    )
    found = []
    for looks in (20, 1):
        monkeypatch.setattr("mirada.train.loop.LOOKS", looks)
        found.append(losses(Path(train(str(folder_of_shapes), settings, out=str(tmp_path / str(looks)))["run"])))
    assert found[0] == found[1]


def test_few_labels_none_of_which_is_held_out(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    table = ["path,label", *(f"{file},{'' if number % 6 else file.parent.name}"
                             for number, file in enumerate(sorted(new_shapes(6).rglob("*.png"))))]  # fmt: skip
    (tmp_path / "some.csv").write_text("\n".join(table))
    notes: list[str] = []

    class Heard(Monitor):
        def note(self, text: str) -> None:
            notes.append(text)

    settings = TINY.with_changes({"objective": "supervised + rotation", "steps": 3}, "test")
    result = train(str(tmp_path / "some.csv"), settings, out=str(tmp_path / "run"), monitor=Heard())
    assert result["metrics"] == {}
    assert mirada.load(result["run"]).classes == ["blue", "green", "red"]
    assert "No accuracy is measured: of the held-out images that can be read, none has a label." in notes


def test_every_process_gets_as_many_images(folder_of_shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirada.train.start.processes", lambda: 3)
    for change, batch, chunk in (({}, 15, None), ({"batch": 16, "chunk": 8}, 12, 6), ({"batch": 9}, 9, None)):
        run = Run(str(folder_of_shapes), TINY.with_changes(change, "test"), torch.device("cpu"), False, Monitor())
        assert (run.settings.batch, run.settings.chunk) == (batch, chunk)
    with pytest.raises(MiradaError, match="2 images at a time are too few for 3 processes"):
        Run(str(folder_of_shapes), TINY.with_changes({"batch": 2}, "test"), torch.device("cpu"), False, Monitor())


def test_a_report_of_more_patches_than_rollout_takes(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["mirada.inspect.rollout"], "MOST_ENTRIES", 50)
    result = train(str(folder_of_shapes), TINY.with_changes({"steps": 1}, "test"), out=str(tmp_path / "run"))
    assert result["metrics"]["val/accuracy"] < 1
    assert "mistake" in Path(result["report"]).read_text()


def test_broken_files_are_listed_not_fatal(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    folder = new_shapes(12)
    (folder / "red" / "000.png").write_bytes(b"broken")
    (folder / "red" / "001.jpg").write_bytes(b"")
    result = train(str(folder), TINY, out=str(tmp_path / "run"))
    assert {Path(entry["path"]).name for entry in result["skipped"]} == {"000.png", "001.jpg"}
    assert all(entry["reason"] for entry in result["skipped"])
    with pytest.raises(MiradaError, match="Cannot read"):
        train(str(folder), TINY, out=str(tmp_path / "strict"), strict=True)


def test_held_out_files_that_are_all_broken_are_no_reason_to_stop(folder_of_shapes: Path, tmp_path: Path) -> None:
    data, notes = tmp_path / "data", []
    shutil.copytree(folder_of_shapes, data / "train")
    (data / "val" / "red").mkdir(parents=True)
    (data / "val" / "red" / "000.png").write_bytes(b"broken")

    class Notes(Monitor):
        def note(self, text: str) -> None:
            notes.append(text)

    result = train(str(data), TINY, out=str(tmp_path / "run"), monitor=Notes())
    assert result["metrics"] == {}
    assert [Path(entry["path"]).name for entry in result["skipped"]] == ["000.png"]
    assert "No accuracy is measured: of the held-out images that can be read, none has a label." in notes
    with pytest.raises(MiradaError, match="Cannot read"):
        train(str(data), TINY, out=str(tmp_path / "strict"), strict=True)


def test_fine_tuning_starts_from_another_run(folder_of_shapes: Path, tmp_path: Path) -> None:
    first = train(str(folder_of_shapes), TINY.with_changes({"steps": 60}, "test"), out=str(tmp_path / "a"))
    settings = TINY.with_changes({"init": first["run"], "steps": 2, "learning_rate": 1e-5, "ema": 0.0}, "test")
    second = train(str(folder_of_shapes), settings, out=str(tmp_path / "b"))
    assert second["metrics"]["val/accuracy"] == pytest.approx(first["metrics"]["val/accuracy"], abs=0.12)


def test_self_supervision_needs_no_labels(folder_of_shapes: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in folder_of_shapes.rglob("*.png"):
        (flat / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    result = train(str(flat), TINY.with_changes({"objective": "rotation"}, "test"), out=str(tmp_path / "run"))
    assert result["metrics"] == {}
    assert mirada.load(result["run"]).classes is None
    with pytest.raises(MiradaError, match="no labels: put each class into a folder"):
        train(str(flat), TINY, out=str(tmp_path / "other"))


def test_a_run_is_never_written_over(folder_of_shapes: Path, tmp_path: Path) -> None:
    train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"))
    with pytest.raises(MiradaError, match=r"a run in .* already: add --resume"):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"))
    with pytest.raises(MiradaError, match="no run to resume"):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / "nothing"), resume=True)


def test_a_config_of_a_newer_version_is_refused(folder_of_shapes: Path, tmp_path: Path) -> None:
    train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"))
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("format: 1", "format: 2"))
    with pytest.raises(MiradaError, match="newer Mirada"):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"), resume=True)


def test_moments_go_to_their_own_parameters(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = TINY.with_changes({"optimiser": "adamw", "steps": 2}, "test")
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text().replace("steps: 2", "steps: 4")
    config.write_text(text.replace("weight_decay: 0.05", "weight_decay: 0.0"))
    with pytest.raises(MiradaError, match=r"another parameter's.*does not belong to this run's settings"):
        train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)
    config.write_text(text)
    assert train(str(folder_of_shapes), settings, out=str(tmp_path / "run"), resume=True)["steps"] == 4


def test_averages_begin_with_the_head_that_a_run_starts_from(folder_of_shapes: Path, tmp_path: Path) -> None:
    train(str(folder_of_shapes), TINY, out=str(tmp_path / "a"))
    settings = TINY.with_changes({"init": str(tmp_path / "a"), "ema": 0.999}, "test")
    run = Run(str(folder_of_shapes), settings, torch.device("cpu"), False, Monitor())
    assert run.average is not None
    head = mirada.load(tmp_path / "a").head
    assert head is not None
    assert torch.equal(run.average.values["objectives.supervised.head.weight"], head.weight)


def test_large_images_are_few_where_a_network_is_prepared(
    folder_of_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []
    monkeypatch.setattr(ViT, "prepare", lambda _, images: seen.append(images.shape))
    Run(str(folder_of_shapes), TINY.with_changes({"canvas": 512}, "test"), torch.device("cpu"), False, Monitor())
    assert seen == [(64, 3, 512, 512)]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_atomically(path, {"x": torch.ones(10)}, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(MiradaError, match=r"Cannot save .*what was saved before is intact"):
            save_atomically(path, {"x": torch.ones(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert safetensors.torch.load_file(path)["x"].sum() == 10
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, torch.nn.Linear(3, 2), [], None, {"step": 1})
    with pytest.raises(MiradaError, match=r"Cannot resume from .*does not belong to this run"):
        load_checkpoint(path, torch.nn.Linear(4, 2), [], None)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(MiradaError, match="or is damaged"):
        load_checkpoint(path, torch.nn.Linear(3, 2), [], None)


def test_averages_follow_and_swap() -> None:
    module = torch.nn.Linear(2, 2)
    average = Average(module, 0.9)
    first = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    average.update(module)
    torch.testing.assert_close(average.values["weight"], first + 0.9)  # the first decay is 0.1
    now = module.weight.detach().clone()
    average.swap(module)
    torch.testing.assert_close(module.weight.detach(), first + 0.9)
    average.swap(module)
    assert torch.equal(module.weight.detach(), now)


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == "float32"
    assert choose_precision("auto", cpu) in ("float32", "bfloat16")
    assert choose_precision("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_precisions_train(folder_of_shapes: Path, tmp_path: Path, precision: str) -> None:
    settings = TINY.with_changes({"precision": precision, "steps": 50}, "test")
    result = train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    assert result["metrics"]["val/accuracy"] >= 0.8


def test_early_steps_may_see_smaller_images(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = TINY.with_changes({"early_size": 16, "steps": 50}, "test")
    result = train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    assert result["metrics"]["val/accuracy"] >= 0.8


def test_tensorboard_gets_the_metrics(folder_of_shapes: Path, tmp_path: Path) -> None:
    train(str(folder_of_shapes), TINY, out=str(tmp_path / "run"), log=["tensorboard"])
    files = list((tmp_path / "run" / "tensorboard").iterdir())
    assert b"supervised/loss" in files[0].read_bytes()
    assert files[0].read_bytes().count(b"val/accuracy") == 3  # twice on the way, and at the end
    with pytest.raises(MiradaError, match="no log 'tensorbord'"):
        train(str(folder_of_shapes), TINY, out=str(tmp_path / "other"), log=["tensorbord"])


def test_an_augmentation_that_no_term_takes_is_noted(folder_of_shapes: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(Monitor):
        def note(self, text: str) -> None:
            notes.append(text)

    for number, (objective, noted) in enumerate((("simclr", True), ("simclr + rotation", False))):
        settings = TINY.with_changes({"objective": objective, "augment": "zoom", "steps": 1}, "test")
        train(str(folder_of_shapes), settings, out=str(tmp_path / str(number)), monitor=Notes())
        assert any("takes --augment" in note for note in notes) == noted
        notes.clear()


def test_a_budget_that_is_used_up_takes_no_more_steps_unless_it_is_raised(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, run = TINY.with_changes({"budget": 3.0}, "test"), tmp_path / "run"
    first = train(str(folder_of_shapes), settings, out=str(run))
    early = {"seconds": 0.5}  # as if the last step had left much of it, but no room for another
    monkeypatch.setattr("mirada.train.run.load_checkpoint", lambda *given: load_checkpoint(*given) | early)
    assert train(str(folder_of_shapes), settings, out=str(run), resume=True)["steps"] == first["steps"]
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("budget: 3.0", "budget: 6.0"))
    assert train(str(folder_of_shapes), settings, out=str(run), resume=True)["steps"] > first["steps"]


def test_the_last_step_of_a_budget_ends_the_run(folder_of_shapes: Path, tmp_path: Path) -> None:
    settings = TINY.with_changes({"objective": "rotation", "budget": 3.0, "steps": None}, "test")
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["progress"] == 1.0
    assert "health/rank" in rows[-1]
