"""Going on with a self-supervised run: student, teacher, heads and centre are those of its last checkpoint."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import document, refused

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.objectives import Learner
from mirada.train.checkpoint import save_checkpoint
from mirada.train.lora import add_lora, merged
from mirada.train.run import train
from mirada.train.settings import Settings, read_settings
from mirada.train.start import Monitor
from mirada.train.take_over import take_over

MODEL = "vit-pico/4(depth=1, image_size=16)"
DINO = "dino(prototypes=16, hidden=16, bottleneck=8, centring='mean')"


def learner(text: str, seed: int) -> Learner:
    torch.manual_seed(seed)
    return Learner(build(MODEL), text)


def saved(folder: Path, text: str) -> Learner:
    module = learner(text, 0)
    for value in module.state_dict().values():
        value.add_(1)  # teacher and student differ from a fresh start
    save_checkpoint(folder / "checkpoints" / "last.safetensors", module, [], None, {"step": 5})
    return module


def test_all_of_the_same_objective_is_taken(tmp_path: Path) -> None:
    before, now = saved(tmp_path, DINO), learner(DINO, 1)
    assert take_over(now, str(tmp_path)) == f"Going on with the student and all of dino from {tmp_path}."
    for name, value in before.state_dict().items():
        assert torch.equal(now.state_dict()[name], value), name


def test_of_a_sum_what_is_in_both_is_taken(tmp_path: Path) -> None:
    before, now = saved(tmp_path, f"{DINO} + rotation"), learner(f"{DINO} + masked", 1)
    fresh = {name: value.clone() for name, value in now.state_dict().items()}
    assert take_over(now, str(tmp_path)) is not None
    for name, value in now.state_dict().items():
        expected = fresh if name.startswith("objectives.masked") else before.state_dict()
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("text", [DINO, "masked"])
def test_low_rank_changes_begin_with_what_the_run_knew(tmp_path: Path, text: str) -> None:
    before = saved(tmp_path, text)
    torch.manual_seed(1)
    backbone = build(MODEL)
    add_lora(backbone, 2)
    now = Learner(backbone, text)
    note = take_over(now, str(tmp_path))
    assert note is not None
    assert note.startswith("Going on with the student")
    found = merged(now)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(found[name], value)


def test_of_a_run_with_low_rank_changes_only_the_model_is_taken_and_it_says_so(tmp_path: Path) -> None:
    backbone = build(MODEL)
    add_lora(backbone, 2)
    save_checkpoint(tmp_path / "checkpoints" / "last.safetensors", Learner(backbone, "masked"), [], None, {"step": 5})
    note = take_over(learner("masked", 1), str(tmp_path))
    assert note is not None
    assert "only its model is taken" in note


def test_other_options_start_anew_and_say_so(tmp_path: Path) -> None:
    saved(tmp_path, DINO)
    now = learner(DINO.replace("prototypes=16", "prototypes=32"), 1)
    fresh = {name: value.clone() for name, value in now.state_dict().items()}
    assert take_over(now, str(tmp_path)) == f"Of {tmp_path}, dino had other options, or --lora: its heads start anew."
    assert all(torch.equal(value, fresh[name]) for name, value in now.state_dict().items())


def test_fine_tuning_takes_nothing(tmp_path: Path) -> None:
    saved(tmp_path, DINO)
    assert take_over(learner("rotation", 1), str(tmp_path)) is None
    assert take_over(learner(DINO, 1), str(tmp_path / "nowhere")) is None
    assert take_over(learner(DINO, 1), "vit-pico/4") is None


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, DINO)
    path = tmp_path / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MiradaError, match=r"Cannot read .*: it is damaged; name .*model to start from its model alone"):
        take_over(learner(DINO, 1), str(tmp_path))


def test_a_run_goes_on_where_the_last_one_was(folder_of_shapes: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(Monitor):
        def note(self, text: str) -> None:
            notes.append(text)

    settings = Settings(
        model="vit-pico/8(depth=1)", objective="masked", image_size=24, batch=16, steps=60, precision="float32",
        validate=0,
    )  # fmt: skip
    train(str(folder_of_shapes), settings, out=str(tmp_path / "first"))
    again = settings.with_changes({"init": str(tmp_path / "first"), "steps": 2, "learning_rate": 1e-9}, "test")
    train(str(folder_of_shapes), again, out=str(tmp_path / "second"), monitor=Notes())
    assert any(note.startswith("Going on with the student and all of masked") for note in notes)
    first, second = (torch.tensor([row["loss"] for row in rows_of(tmp_path / name)]) for name in ("first", "second"))
    assert second.mean() < (first[:2].mean() + first[-10:].mean()) / 2


def test_pictures_without_labels_go_on_with_the_runs_objective(folder_of_shapes: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, picture in enumerate(sorted(folder_of_shapes.rglob("*.png"))):
        shutil.copy(picture, flat / f"{number}.png")
    settings = Settings(
        model="vit-pico/8(depth=1)", image_size=24, batch=8, steps=1, precision="float32", validate=0,
    )  # fmt: skip
    with pytest.raises(MiradaError, match="These images have no labels"):
        train(str(flat), settings, out=str(tmp_path / "none"))
    train(str(flat), replace(settings, objective=DINO), out=str(tmp_path / "first"))
    begin = ("--init", tmp_path / "first", "--steps", 1, "--batch", 8)
    document("train", flat, *begin, "--out", tmp_path / "second")
    assert read_settings((tmp_path / "second" / "config.yaml").read_text(), "it")["objective"] == DINO
    document("train", folder_of_shapes, *begin, "--out", tmp_path / "third")
    assert read_settings((tmp_path / "third" / "config.yaml").read_text(), "it")["objective"] == "supervised"
    said = refused(1, "train", flat, *begin, "--objective", "supervised", "--out", tmp_path / "fourth")
    assert "These images have no labels" in said


def rows_of(run: Path) -> list[dict[str, float]]:
    import json

    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
