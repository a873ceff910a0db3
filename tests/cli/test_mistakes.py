"""What commands say of mistakes: in the data, in the command, and on the way."""

import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from commands import SHORT, TINY, document, refused, run
from shapes import COLOURS, shape_picture


def test_data_that_are_not_there_or_empty(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    near = str(folder_of_shapes)[:-1]
    for verb in (["train"], ["evaluate", str(trained_run)]):
        assert "the folder is empty" in refused(1, *verb, tmp_path / "empty")
        assert "only 'a.txt'" in refused(1, *verb, tmp_path / "notes")
        assert f"did you mean {str(folder_of_shapes)!r}?" in refused(1, *verb, near)
        assert "as data: give a folder" in refused(1, *verb, tmp_path / "notes" / "a.txt")
        assert "save the data set as parquet" in refused(1, *verb, "hf:someone/something")


def test_one_class_only_and_no_labels(tmp_path: Path) -> None:
    for name in ("one/cat", "flat"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(4):
            shape_picture("red", number).save(tmp_path / name / f"{number}.png")
    assert "There is one class only, 'cat', and it takes two" in refused(1, "train", tmp_path / "one", *SHORT)
    assert "have no labels: put each class into a folder" in refused(1, "train", tmp_path / "flat", *SHORT)
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_may_not_be_read(
    new_shapes: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scandir = new_shapes(4), os.scandir

    def locked(path: str) -> Any:  # as the superuser may read everything, whoever runs the tests
        if path.endswith("red"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", locked)
    said = refused(1, "train", folder, *SHORT, "--out", tmp_path / "run")
    assert said == (f"Cannot read the folder '{folder}/red': permission denied; "
                    "give yourself access to it, or move it elsewhere.")  # fmt: skip


def test_labels_that_differ_between_splits(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    new_shapes(4).rename(folder / "train")
    shutil.copytree(folder / "train", folder / "val")
    (folder / "val" / "red").rename(folder / "val" / "purple")
    said = refused(1, "train", folder, *SHORT, "--out", tmp_path / "run")
    assert "The val split has classes that the train split has not: 'purple'" in said


def test_nothing_but_broken_files(tmp_path: Path, trained_run: Path) -> None:
    for colour in COLOURS:
        (tmp_path / "broken" / colour).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "broken" / colour / f"{number}.jpg").write_bytes(b"\xff\xd8broken")
    assert "None of the 3 files can be read" in refused(1, "train", tmp_path / "broken", *SHORT)
    assert "None of the 6 files can be read" in refused(1, "evaluate", trained_run, tmp_path / "broken")


def test_broken_files_are_skipped_and_named(new_shapes: Callable[[int], Path], trained_run: Path) -> None:
    folder = new_shapes(4)
    (folder / "red" / "000.png").write_text("not an image")
    evaluate = document("evaluate", trained_run, folder, "--split", "all")
    assert evaluate["n"] == 11
    assert [Path(entry["path"]).name for entry in evaluate["skipped"]] == ["000.png"]
    assert "Cannot read" in refused(1, "evaluate", trained_run, folder, "--split", "all", "--strict")
    classify = run("classify", trained_run, folder / "red", "--json")
    assert classify.exit_code == 0
    assert len(json.loads(classify.stdout)) == 3
    assert "skipped" in classify.stderr


def test_classes_the_model_does_not_know(new_shapes: Callable[[int], Path], trained_run: Path) -> None:
    folder = new_shapes(2)
    (folder / "red").rename(folder / "purple")
    assert "does not know the class 'purple'" in refused(1, "evaluate", trained_run, folder)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--model", "vit-tiny/4"], "did you mean 'vit-ti/4'?"),
    (["--model", "vit-ti/four"], "must be a whole number"),
    (["--model", "vit-ti/4(registers=-1)"], "use 0 or more"),
    (["--model", "vit-ti/4(regsters=1)"], "did you mean 'registers'?"),
    (["--model", "vit-ti/16", "--image-size", "40"], "do not divide into patches of 16: use an image size of 32"),
    (["--image-size", "0"], "image_size must be above 0"),
    (["--objective", "supervisd"], "did you mean 'supervised'?"),
    (["--objective", "supervised +"], "Cannot read the objective"),
    (["--objective", "supervised(smothing=1)"], "has no option 'smothing'"),
    (["--augment", "wild"], "'wild'"),
    (["--recipe", "dmo"], "did you mean 'demo'?"),
    (["--model", "hf:facebook/dinov2-small"], "write --init hf:facebook/dinov2-small and no model"),
    (["--steps", "0"], "steps must be above 0"),
    (["--epochs", "0"], "epochs must be above 0"),
    (["--epochs", "1", "--steps", "1"], "one of epochs, steps and budget"),
    (["--budget", "soon"], "as a duration"),
    (["--batch", "5", "--chunk", "2"], "chunks of 2"),
    (["--objective", "supervised + dino", "--batch", "8", "--chunk", "4"], "dino looks at all images of a batch"),
    (["--objective", "masked", "--model", "resnet-18", "--image-size", "80"], "use an image size of 64 or 96"),
    (["--objective", "dino(masked=1)", "--model", "resnet-18", "--image-size", "80"], "of 32 pixels are to be hidden"),
    (["--optimiser", "sgd"], "choose auto or adamw or muon"),
    (["--precision", "half"], "choose auto or float32 or bfloat16"),
    (["--objective", "jigsaw", "--model", "vit-pico/16", "--image-size", "16"], "Jigsaw cuts tiles of one patch (16"),
    (["--model", "resnet-18", "--objective", "masked(method='mae')"], "use a ViT, or masked(method='simmim')"),
    (["--balance", "gradnorm"], "There is nothing to balance in 'supervised'"),
    (["--balance", "luck"], "choose fixed or uncertainty or gradnorm"),
    (["--freeze", "40"], "Cannot freeze 40 layers of a backbone of 8"),
    (["--ema", "1"], "below 1"),
    (["--device", "toaster"], "There is no device 'toaster'"),
    (["--log", "paper"], "There is no log 'paper'"),
    (["--resume"], "--out RUN and --resume only"),
    (["--resume", "--out", "x", "--steps", "3"], "--out RUN and --resume only"),
])  # fmt: skip
def test_misuse_of_train(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    def no_image_may_be_read(*_: object, **__: object) -> None:
        raise AssertionError("an image was read before the mistake was found")

    monkeypatch.setattr("mirada.train.start.Images", no_image_may_be_read)
    monkeypatch.setattr("mirada.train.start.canvas_side", no_image_may_be_read)
    monkeypatch.chdir(tmp_path)
    assert said in refused(2, "train", folder_of_shapes, *arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [
    ["classify", "run", "image.png", "--top", "0"], ["evaluate", "run", "data", "--batch", "0"],
    ["train"], ["train", "a", "b"], ["train", "a", "--steps", "many"], ["evaluate", "run"], ["fly"],
    ["models", "--all"], [],
])  # fmt: skip
def test_misuse_that_the_parser_finds(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert result.stdout == "" or not arguments  # `mirada` alone shows its help


def test_misuse_of_evaluate(folder_of_shapes: Path, trained_run: Path) -> None:
    evaluate = ["evaluate", trained_run, folder_of_shapes]
    assert "There is no probe 'luck'" in refused(2, *evaluate, "--probe", "luck")
    assert "There is no probe 'few_shot'" in refused(2, *evaluate, "--probe", "few_shot")
    assert "There is no split 'tset'" in refused(2, *evaluate, "--split", "tset")
    assert "choose val or test" in refused(2, *evaluate, "--probe", "linear", "--split", "train")
    assert "have no labels: linear needs" in refused(1, *evaluate[:2], folder_of_shapes / "red", "--probe", "linear")
    assert "have no split 'test': there is all" in refused(1, *evaluate, "--split", "test")


def test_references_that_lead_nowhere(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    image = folder_of_shapes / "red" / "000.png"
    for ref, said in [
        (str(trained_run)[:-1], f"did you mean {str(trained_run)!r}?"),
        ("vit-smal/16", "`mirada models` lists all names"),
        (str(image), "is a file: give the folder"),
        (str(tmp_path), "has no config.json"),
        ("timm:vit_base", "add the tag"),
    ]:
        assert said in refused(1, "classify", ref, image)
        assert said in refused(1, "evaluate", ref, folder_of_shapes)
        assert said in refused(1, "models", ref)
    assert "neither a folder nor a size" in refused(1, "train", folder_of_shapes, "--init", tmp_path / "gone")
    assert "has no classification head: train one" in refused(1, "classify", "vit-pico/16", image)
    assert "has no classification head: train one" in refused(1, "evaluate", "vit-pico/16", folder_of_shapes)


def test_images_that_are_not_there_or_not_images(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    image = folder_of_shapes / "red" / "000.png"
    assert "has no 'gone.png'" in refused(1, "classify", trained_run, image, tmp_path / "gone.png")
    assert "did you mean" in refused(1, "classify", trained_run, folder_of_shapes / "red" / "00.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert "None of the 1 files can be read as an image" in refused(1, "classify", trained_run, tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    assert "There are no images in" in refused(1, "classify", trained_run, tmp_path / "empty")


def test_a_device_that_is_not_there(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    import torch

    missing = next(name for name in ("mps", "cuda") if not getattr(torch, name).is_available())
    said = f"PyTorch finds no device '{missing}' on this machine: choose auto or cpu."
    image = folder_of_shapes / "red" / "000.png"
    assert refused(1, "train", folder_of_shapes, "--device", missing, "--out", tmp_path / "run") == said
    assert refused(1, "evaluate", trained_run, folder_of_shapes, "--device", missing) == said
    assert refused(1, "classify", trained_run, image, "--device", missing) == said
    assert "There is no device 'gpu'" in refused(2, "classify", trained_run, image, "--device", "gpu")


def test_a_folder_that_cannot_be_written(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirada.train.start.Images", None)  # found before any image is read
    (tmp_path / "file").write_text("in the way")
    said = refused(1, "train", folder_of_shapes, *SHORT, "--out", tmp_path / "file" / "run")
    assert "it is not a folder): choose another --out" in said
    assert "it is not a folder" in refused(1, "train", folder_of_shapes, *SHORT, "--out", tmp_path / "file")
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "may not write" in refused(1, "train", folder_of_shapes, *SHORT, "--out", tmp_path / "locked" / "run")


def test_a_run_that_is_there_already(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    assert "add --resume to go on" in refused(1, "train", folder_of_shapes, "--out", trained_run)
    assert "no run to resume in" in refused(1, "train", folder_of_shapes, "--out", tmp_path / "none", "--resume")


def test_files_of_a_newer_version(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(trained_run, copied)
    config, model = copied / "config.yaml", copied / "model" / "config.json"
    config.write_text(config.read_text().replace("format: 1", "format: 9"))
    model.write_text(model.read_text().replace('"format": 2', '"format": 9'))
    assert "newer Mirada" in refused(1, "train", folder_of_shapes, "--out", copied, "--resume")
    assert "newer Mirada" in refused(1, "evaluate", copied, folder_of_shapes)
    assert "newer Mirada" in refused(2, "train", folder_of_shapes, "--recipe", config)
    config.write_text("# la mejor que encontré\nsteps: 3\n", encoding="utf-16")
    assert "it is not UTF-8" in refused(2, "train", folder_of_shapes, "--recipe", config)


def test_a_loss_that_is_no_number(folder_of_shapes: Path, tmp_path: Path) -> None:
    said = refused(1, "train", folder_of_shapes, *TINY, "--steps", 30, "--lr", "1e30", "--out", tmp_path / "run")
    assert "try a lower --lr" in said
    doctor = document("doctor", tmp_path / "run")
    assert not doctor["healthy"]
    assert [alarm["name"] for alarm in doctor["alarms"]] == ["not a number"]


def test_the_doctor(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    found = document("doctor", trained_run)
    assert (found["run"], found["healthy"], found["alarms"]) == (str(trained_run), True, [])
    flat, out = folder_of_shapes / "red", tmp_path / "run"
    result = run("train", flat, *TINY, "--steps", 12, "--objective", "simclr", "--batch", 8, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("The doctor: simclr tells each image apart from 14 others only.") == 1
    found = document("doctor", out)
    assert not found["healthy"]
    assert "batch too small" in {alarm["name"] for alarm in found["alarms"]}
    assert {"health/rank", "health/feature_deviation", "simclr/relative_loss"} < found["measured"].keys()
    result = run("doctor", out)
    assert result.exit_code == 0
    assert re.match(rf"{out} after 12 steps: (1 thing is|\d things are) wrong\n\n", result.stdout)
    assert "\nBatch too small. simclr tells" in result.stdout
    assert f"page    {out / 'doctor.html'}" in result.stdout
    assert "tells each image apart from 14 others only" in (out / "report.html").read_text()
    assert "name a folder that `mirada train` made" in refused(1, "doctor", folder_of_shapes)


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Files end at `most` bytes, with the error a full disk gives."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(("most", "said"), [(100_000, "Cannot save"), (100, "Cannot write to"), (1200, "Cannot")])
def test_a_full_disk(folder_of_shapes: Path, tmp_path: Path, most: int, said: str) -> None:
    with full_disk(most):
        assert said in refused(1, "train", folder_of_shapes, *TINY, "--steps", 30, "--out", tmp_path / "run")
    assert not list(tmp_path.rglob("*.part"))


def test_memory_that_is_not_enough(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")):
        monkeypatch.setattr("mirada.catalogue.load", Mock(side_effect=error))
        assert "memory is not enough" in refused(1, "models", trained_run)
