"""Every command as a person meets it: what it prints where, what it writes, how it ends, what it says of mistakes."""

import gzip
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shapes import COLOURS, shape_picture
from typer.testing import CliRunner

from mirada.cli.main import app
from mirada.train.folder import RunFolder

TINY = ["--model", "vit-pico/8(depth=1)", "--image-size", "24", "--batch", "16", "--precision", "float32"]
SHORT = [*TINY, "--steps", "2"]
MIRADA = [sys.executable, "-m", "mirada"]


def run(*arguments: object) -> Any:
    """The command in this process; `exit_code`, `stdout` and `stderr` are as a shell would see them."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document(*arguments: object) -> Any:
    """What a command that succeeds prints with --json, which is one document and nothing else."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def refused(code: int, *arguments: object) -> str:
    """What a command that fails says: on stderr, in one sentence, after which nothing else happens."""
    result = run(*arguments)
    assert result.exit_code == code, (result.exit_code, result.stderr, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("mirada: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("mirada: ")


def png(colour: str, number: int) -> bytes:
    buffer = io.BytesIO()
    shape_picture(colour, number).save(buffer, "PNG")
    return buffer.getvalue()


# --- the whole way -----------------------------------------------------------------------------------------------


def test_train_evaluate_classify_models(folder_of_shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train = document("train", folder_of_shapes, *TINY, "--steps", 60, "--lr", "2e-3", "--out", out)
    assert train.keys() >= {"run", "model", "steps", "images", "seconds", "metrics", "skipped"}
    assert (train["run"], train["model"], train["steps"], train["images"]) == (str(out), str(out / "model"), 60, 960)
    assert train["metrics"]["val/accuracy"] >= 0.8
    assert train["skipped"] == []
    assert all((out / name).exists() for name in ("config.yaml", "metrics.jsonl", "report.html", "checkpoints"))

    evaluate = document("evaluate", out, folder_of_shapes)
    assert evaluate.keys() >= {"probe", "split", "n", "metrics", "interval"}
    assert (evaluate["probe"], evaluate["split"], evaluate["n"]) == ("accuracy", "val", 18)
    assert evaluate["metrics"]["accuracy"] == train["metrics"]["val/accuracy"]
    low, high = evaluate["interval"]
    assert 0 <= low < evaluate["metrics"]["accuracy"] <= high <= 1

    files = [folder_of_shapes / "red" / "000.png", folder_of_shapes / "blue" / "001.png"]
    classify = document("classify", out, *files)
    assert [set(answer) for answer in classify] == [{"path", "labels"}] * 2
    assert [answer["path"] for answer in classify] == [str(file) for file in files]
    assert [answer["labels"][0]["label"] for answer in classify] == ["red", "blue"]
    for answer in classify:
        scores = [label["score"] for label in answer["labels"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-4)

    (model,) = document("models", out)
    assert model["classes"] == ["blue", "green", "red"]
    assert model["preprocess"]["size"] == [24, 24]


def test_what_a_person_reads(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    train = run("train", folder_of_shapes, *SHORT, "--out", out)
    assert train.exit_code == 0
    assert "val accuracy " in train.stdout
    assert " of 18 images (95% interval " in train.stdout
    assert f"model   {out}/model\nreport  {out}/report.html\nuse it  mirada classify '{out}' IMAGES\n" in train.stdout
    evaluate = run("evaluate", trained_run, folder_of_shapes)
    assert evaluate.stdout.startswith("val accuracy ")
    assert "trained on 72 of these images and is measured on the other 18" in evaluate.stderr
    classify = run("classify", trained_run, folder_of_shapes / "red", "--top", 1)
    assert classify.stdout.count("\n") == 30
    assert classify.stdout.count("%") == 30
    models = run("models", trained_run)
    assert "3: blue, green, red" in models.stdout
    assert "24x24 pixels" in models.stdout


def test_the_training_split_is_not_measured_unless_asked(
    trained_run: Path, folder_of_shapes: Path, tmp_path: Path
) -> None:
    every = document("evaluate", trained_run, folder_of_shapes, "--split", "all")
    seen = document("evaluate", trained_run, folder_of_shapes, "--split", "train")
    assert [(part["split"], part["n"]) for part in (every, seen)] == [("all", 90), ("train", 72)]
    shutil.copytree(folder_of_shapes, tmp_path / "others")
    other = document("evaluate", trained_run, tmp_path / "others")
    assert (other["split"], other["n"], other["notes"]) == ("all", 90, [])


@pytest.mark.parametrize(("probe", "names", "said"), [
    ("accuracy", ["accuracy", "balanced_accuracy", "loss"], r"val accuracy \d+\.\d% of 18 images \(95% int"),
    ("knn", ["accuracy", "balanced_accuracy"], r"kNN val accuracy \d+\.\d% of 18 images \(95% interval "),
    ("linear", ["accuracy", "balanced_accuracy", "loss", "C"], r"linear probe val accuracy \d+\.\d% of 18 im"),
    ("attentive", ["accuracy", "balanced_accuracy", "loss", "learning_rate"],
     r"attentive probe val accuracy \d+\.\d% of 18 im"),
    ("few-shot", [f"{k}-shot/{what}" for k in (1, 2, 5, 10) for what in ("accuracy", "std")] + ["accuracy"],
     r"(\d+ per class: \d+\.\d%, ±\d+\.\d% between episodes\n){4}few-shot val accuracy \d+\.\d% of 18 images"),
    ("retrieval", ["mAP", "R@1"], r"val mAP \d+\.\d% of 18 images \(95% interval "),
])  # fmt: skip
def test_probes(folder_of_shapes: Path, trained_run: Path, probe: str, names: list[str], said: str) -> None:
    command = ["evaluate", trained_run, folder_of_shapes, "--probe", probe]
    found = document(*command)
    assert (found["probe"], found["split"], found["n"]) == (probe, "val", 18)
    assert list(found["metrics"]) == names
    low, high = found["interval"]
    assert 0.4 < low < found["metrics"]["mAP" if probe == "retrieval" else "accuracy"] <= high <= 1
    result = run(*command)
    assert result.exit_code == 0
    assert re.match(said, result.stdout), result.stdout


def test_the_seed_of_probes(folder_of_shapes: Path) -> None:
    command = ["evaluate", "vit-pico/8(image_size=24)", folder_of_shapes, "--probe", "few-shot"]
    first, again, other = (document(*command, "--seed", seed)["metrics"] for seed in (0, 0, 1))
    assert first == again != other


def test_a_recipe_and_flags_over_it(folder_of_shapes: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: vit-pico/8(depth=1)\nimage_size: 24\nsteps: 99\nbatch: 16\nprecision: float32\n")
    result = document("train", folder_of_shapes, "--recipe", recipe, "--steps", 2, "--out", tmp_path / "run")
    assert result["steps"] == 2


def test_init_brings_architecture_and_image_size(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    document("train", folder_of_shapes, "--init", trained_run, "--steps", 1, "--batch", 16, "--out", out)
    (model,) = document("models", out)
    assert model["name"].startswith("vit-pico/8(")
    assert model["preprocess"]["size"] == [24, 24]
    said = refused(2, "train", folder_of_shapes, "--init", trained_run, "--model", "vit-ti/4")
    assert "give --init or --model" in said


# --- every form of data ------------------------------------------------------------------------------------------


def as_parquet(folder: Path) -> Path:
    folder.mkdir()
    for split, numbers in (("train", range(20)), ("test", range(20, 26))):
        rows = [{"image": png(colour, number), "label": label, "label_name": colour}
                for label, colour in enumerate(COLOURS) for number in numbers]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    return folder


def as_csv(folder: Path) -> Path:
    folder.mkdir()
    lines = ["path,label_name"]
    for colour in COLOURS:
        for number in range(20):
            (folder / f"{colour}{number}.png").write_bytes(png(colour, number))
            lines.append(f"{colour}{number}.png,{colour}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def as_idx(folder: Path) -> Path:
    folder.mkdir()
    for prefix, numbers in (("train", range(20)), ("t10k", range(20, 26))):
        pixels = [np.asarray(shape_picture(colour, number).convert("L")) for colour in COLOURS for number in numbers]
        labels = [label for label in range(3) for _ in numbers]
        shape = np.array([len(pixels), 24, 24], ">u4").tobytes()
        images = bytes([0, 0, 8, 3]) + shape + np.stack(pixels).tobytes()
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + shape[:4] + bytes(labels))
    return folder


def as_shards(folder: Path) -> Path:
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"shapes-{shard:02}.tar", "w") as tar:
            for label, colour in enumerate(COLOURS):
                for number in range(10 * shard, 10 * shard + 10):
                    for suffix, data in (("png", png(colour, number)), ("cls", str(label).encode())):
                        member = tarfile.TarInfo(f"{colour}{number}.{suffix}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return folder / "shapes-{00..01}.tar"


@pytest.mark.parametrize(("make", "split", "n", "classes"), [
    (as_parquet, "test", 18, ["blue", "green", "red"]),
    (as_csv, "val", 12, ["blue", "green", "red"]),
    (as_idx, "test", 18, ["0", "1", "2"]),
    (as_shards, "val", 12, ["0", "1", "2"]),
])  # fmt: skip
def test_every_form_of_data(
    tmp_path: Path, make: Callable[[Path], Path], split: str, n: int, classes: list[str]
) -> None:
    data, out = make(tmp_path / "data"), tmp_path / "run"
    train = document("train", data, *TINY, "--epochs", 2, "--out", out)
    evaluate = document("evaluate", out, data)
    assert (evaluate["split"], evaluate["n"]) == (split, n)
    assert evaluate["metrics"]["accuracy"] == train["metrics"][f"{split}/accuracy"]
    assert document("models", out)[0]["classes"] == classes


def test_a_run_is_named_after_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    names = ["x/photos/", "fotos 2024", "x/shapes-{000..127}.tar", "train.parquet", "/"]
    found = [str(RunFolder.unused(name).path.relative_to("runs")) for name in names]
    assert found == ["photos-2", "fotos 2024", "shapes", "train", "data"]


def test_a_class_with_one_image(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    folder = new_shapes(8)
    (folder / "rare").mkdir()
    shape_picture("red", 99).save(folder / "rare" / "only.png")
    result = run("train", folder, *SHORT, "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert "Classes with one image are trained on but not measured: 'rare'." in result.stderr
    assert document("models", tmp_path / "run")[0]["classes"] == ["blue", "green", "rare", "red"]


def test_names_with_spaces_accents_and_newlines(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    folder = tmp_path / "mis fotos\nñandú 目"
    new_shapes(8).rename(folder)
    (folder / "red").rename(folder / "ro\njo [bold]")
    out = tmp_path / "el run\n'ñ'"
    train = run("train", folder, *SHORT, "--out", out)
    assert train.exit_code == 0, train.stderr
    assert document("models", out)[0]["classes"] == ["blue", "green", "ro\njo [bold]"]
    assert document("evaluate", out, folder)["n"] == 6
    resumed = run("train", folder, "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    image = next((folder / "ro\njo [bold]").iterdir())
    assert document("classify", out, image)[0]["path"] == str(image)
    assert run("classify", out, image).stdout.count("\n") == 1


def test_a_file_name_that_is_not_utf8(new_shapes: Callable[[int], Path], trained_run: Path, tmp_path: Path) -> None:
    folder = new_shapes(8)
    odd = os.fsencode(folder / "red") + b"/caf\xe9.png"
    try:
        os.rename(folder / "red" / "000.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (folder / "red" / os.fsdecode(b"brok\xe9n.png")).write_bytes(b"no image")
    result = subprocess.run(
        [*MIRADA, "classify", trained_run, folder / "red", "--json"], capture_output=True, check=True
    )  # fmt: skip
    paths = [answer["path"] for answer in json.loads(result.stdout)]
    assert os.fsdecode(odd) in paths
    train = run("train", folder, *SHORT, "--out", tmp_path / "run", "--json")
    assert train.exit_code == 0, train.stderr
    assert json.loads(train.stdout)["skipped"][0]["path"].endswith("n.png")


# --- what is wrong with the data ---------------------------------------------------------------------------------


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


# --- what is wrong with the command ------------------------------------------------------------------------------


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
    (["--steps", "0"], "steps must be above 0"),
    (["--epochs", "0"], "epochs must be above 0"),
    (["--epochs", "1", "--steps", "1"], "one of epochs, steps and budget"),
    (["--budget", "soon"], "as a duration"),
    (["--batch", "5", "--accumulate", "2"], "equal parts"),
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

    monkeypatch.setattr("mirada.train.run.Images", no_image_may_be_read)
    monkeypatch.setattr("mirada.train.run.canvas_side", no_image_may_be_read)
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
    monkeypatch.setattr("mirada.train.run.Images", None)  # found before any image is read
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


# --- what goes wrong on the way ----------------------------------------------------------------------------------


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


# --- true processes ----------------------------------------------------------------------------------------------


def test_streams_and_exit_codes_of_the_process(folder_of_shapes: Path, trained_run: Path, tmp_path: Path) -> None:
    done = subprocess.run([*MIRADA, "train", folder_of_shapes, *SHORT, "--out", tmp_path / "run", "--json"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2
    failed = subprocess.run([*MIRADA, "classify", trained_run, "gone.png", "--json"], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("mirada: There is no 'gone.png'")
    assert failed.stderr.count("\n") == 1
    misused = subprocess.run([*MIRADA, "evaluate", "--jsn"], capture_output=True, text=True)
    assert (misused.returncode, misused.stdout) == (2, "")
    version = subprocess.run([*MIRADA, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.count(".") == 2


def test_a_reader_that_has_left(trained_run: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*MIRADA, "models", trained_run, "--json"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_is_full(trained_run: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*MIRADA, "models", trained_run], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("mirada: Cannot read or write (No space left on device)")
    assert "Traceback" not in done.stderr


def test_ctrl_c_saves_and_says_how_to_go_on(folder_of_shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    child = subprocess.Popen([*MIRADA, "train", folder_of_shapes, *TINY, "--steps", "100000", "--out", out],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate()
    assert (child.returncode, stdout) == (130, "")
    steps = metrics.read_text().count("\n")
    resume = f"mirada train {folder_of_shapes} --out '{out}' --resume"
    assert f"Saved after step {steps}. To go on: {resume}\n" in stderr
    assert stderr.endswith("mirada: stopped.\n")
    assert "Traceback" not in stderr
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("steps: 100000", f"steps: {steps + 2}"))
    assert document("train", folder_of_shapes, "--out", out, "--resume")["steps"] == steps + 2
