"""Every command as a person meets it: what it prints where, what it writes, and how it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import MIRADA, SHORT, TINY, document, refused, run

import mirada


def test_train_evaluate_classify_models(folder_of_shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train = document("train", folder_of_shapes, *TINY, "--steps", 60, "--lr", "2e-3", "--out", out)
    assert train.keys() >= {"run", "model", "steps", "images", "seconds", "metrics", "skipped"}
    assert (train["run"], train["model"], train["steps"], train["images"]) == (str(out), str(out / "model"), 60, 960)
    assert train["metrics"]["val/accuracy"] >= 0.8
    assert (train["measured"], train["classes"]) == (18, ["blue", "green", "red"])
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
    assert "it is measured on the 18 of 90 images that training holds out; --split all takes" in evaluate.stderr
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
    moved = document("evaluate", trained_run, tmp_path / "others")
    assert (moved["split"], moved["n"], len(moved["notes"])) == ("val", 18, 1)
    first = next((tmp_path / "others").rglob("*.png"))
    first.rename(first.with_stem("another"))
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


def test_a_recipe_for_images_of_another_size(folder_of_shapes: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "model: vit-pico/8(depth=1)\nimage_size: 32\nearly_size: 16\nsteps: 1\nbatch: 16\nprecision: float32\n"
    )
    document("train", folder_of_shapes, "--recipe", recipe, "--image-size", 48, "--out", tmp_path / "run")
    assert "early_size: 24" in (tmp_path / "run" / "config.yaml").read_text()
    document("train", folder_of_shapes, "--recipe", recipe, "--image-size", 40, "--out", tmp_path / "third")
    assert "early_size: 24" in (tmp_path / "third" / "config.yaml").read_text()  # 20 does not divide into patches
    recipe.write_text(recipe.read_text().replace("early_size: 16", "early_size: 12"))
    said = refused(2, "train", folder_of_shapes, "--recipe", recipe, "--out", tmp_path / "other")
    assert "Images begin with the recipe's early_size, 12 pixels: " in said
    assert not (tmp_path / "other").exists()


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
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"init: {trained_run}\nsteps: 1\nbatch: 16\n")
    document("train", folder_of_shapes, "--recipe", recipe, "--out", tmp_path / "again")
    assert document("models", tmp_path / "again")[0]["preprocess"]["size"] == [24, 24]
    assert "give --init or --model" in refused(2, "train", folder_of_shapes, "--recipe", recipe, "--model", "vit-ti/4")


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
    assert f"Saved after step {steps}; the model so far is {out / 'model'}. To go on: {resume}\n" in stderr
    assert mirada.load(out).provenance["steps"] == steps
    assert stderr.endswith("mirada: stopped.\n")
    assert "Traceback" not in stderr
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("steps: 100000", f"steps: {steps + 2}"))
    assert document("train", folder_of_shapes, "--out", out, "--resume")["steps"] == steps + 2
