"""`mirada anomalies` and `mirada evaluate --probe anomaly`, on drawn textures with and without a defect."""

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import document, refused, run
from PIL import Image
from textures import MODEL, make_textures, texture
from torch import Tensor

from mirada.anomalies.mean_shift import adapt
from mirada.anomalies.overlay import overlay

BAD = {f"{defect}/{number:03}" for defect in ("hole", "scratch") for number in range(5)}
ONE_PATCH = "vit-pico/64(depth=1, image_size=64)"


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MVTec layout; not to be changed."""
    return make_textures(tmp_path_factory.mktemp("textures"))


def name(path: str) -> str:
    return f"{Path(path).parent.name}/{Path(path).stem}"


@pytest.mark.parametrize("method", ["knn", "mahalanobis", "patches"])
def test_defects_come_first_and_above_one(textures: Path, method: str) -> None:
    command = ["anomalies", textures / "test", "--normal", textures / "train", "--model", MODEL, "--method", method]
    found = document(*command)
    assert len(found) == 18
    assert all(set(answer) == {"path", "score"} for answer in found)
    scores = [answer["score"] for answer in found]
    assert scores == sorted(scores, reverse=True)
    assert {name(answer["path"]) for answer in found[:10]} == BAD
    assert all(Path(answer["path"]).is_file() for answer in found)
    assert scores[9] > 1
    assert max(scores[10:]) < 1.5
    assert document(*command, "--top", 3) == found[:3]


def test_heat_maps_show_where(textures: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    command = ["anomalies", textures / "test", "--normal", textures / "train", "--model", MODEL, "--out", out]
    found = document(*command, "--top", 4)
    assert sorted(os.listdir(out)) == sorted(Path(answer["heat_map"]).name for answer in found)
    for rank, answer in enumerate(found, 1):
        assert Path(answer["heat_map"]).name == f"{rank:04}-{Path(answer['path']).stem}.png"
        both = np.asarray(Image.open(answer["heat_map"]).convert("RGB")).astype(float)
        assert both.shape == (256, 516, 3)
        number = 2000 + 100 * name(answer["path"]).startswith("scratch") + int(Path(answer["path"]).stem)
        mask = np.asarray(texture(number, name(answer["path"]).partition("/")[0])[1].resize((256, 256))) > 0
        plain, heated = both[:, :256], both[:, 260:]
        changed = np.abs(heated - 0.6 * plain.mean(2, keepdims=True) - 0.4 * plain).mean(2)
        assert changed[mask].mean() > 3 * changed[~mask].mean()
    assert "heat maps of two runs would mix: give --out a new folder" in refused(1, *command)
    assert "file exists" in refused(1, *command[:-1], found[0]["heat_map"])
    assert len(os.listdir(out)) == 4
    said = run(*command[:-1], tmp_path / "all")
    assert f"heat maps are in {tmp_path / 'all'}" in said.stderr
    assert said.stdout.count("\n") == 18
    assert len(os.listdir(tmp_path / "all")) == 18


def test_long_names_are_cut(textures: Path, tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    long = tmp_path / "asked" / f"{62 * '😀'}.png"
    shutil.copy(next((textures / "test").rglob("*.png")), long)
    (found,) = document("anomalies", tmp_path / "asked", "--normal", textures / "train", "--model", MODEL,
                        "--out", tmp_path / "maps")  # fmt: skip
    assert found["path"] == str(long)
    assert Path(found["heat_map"]).name == f"0001-{50 * '😀'}.png"


def test_the_probe_of_the_mvtec_layout(textures: Path) -> None:
    found = document("evaluate", MODEL, textures, "--probe", "anomaly", "--method", "patches")
    assert (found["probe"], found["split"], found["n"], found["skipped"]) == ("anomaly", "test", 18, [])
    assert set(found["metrics"]) == {"auroc", "pixel_auroc", "aupro"}
    assert found["metrics"]["auroc"] == 1
    assert found["metrics"]["pixel_auroc"] > 0.9
    assert found["metrics"]["aupro"] > 0.7
    low, high = found["interval"]
    assert 0.5 < low < high == 1
    plain = document("evaluate", MODEL, textures, "--probe", "anomaly")
    assert set(plain["metrics"]) == {"auroc"}
    said = run("evaluate", MODEL, textures, "--probe", "anomaly", "--method", "patches")
    assert said.stdout.startswith("patches test AUROC 100.0% of 18 images (95% interval ")
    assert "pixel auroc 9" in said.stdout
    assert "24 images of the class 'good' are normal; of the 18 that are measured, 10 are anomalous." in said.stderr


def test_any_class_can_be_the_normal_one(folder_of_shapes: Path, trained_run: Path) -> None:
    command = ["evaluate", trained_run, folder_of_shapes, "--probe", "anomaly"]
    areas = {}
    for colour in ("red", "green", "blue"):
        found = document(*command, "--normal", colour)
        assert (found["split"], found["n"]) == ("val", 18)
        areas[colour] = found["metrics"]["auroc"]
    assert min(areas.values()) > 0.9
    assert "No class is called good or normal: say which one is with --normal CLASS, of blue, green, red." in (
        refused(1, *command)
    )
    assert "There is no class 'pink' to be the normal one" in refused(2, *command, "--normal", "pink")


def test_mean_shift_is_one_of_the_methods(textures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirada.anomalies.judge.adapt", partial(adapt, steps=2))
    command = ["--method", "mean-shift", "--seed", 3]
    found = document("evaluate", MODEL, textures, "--probe", "anomaly", *command)
    assert found["metrics"]["auroc"] > 0.8
    answers = document("anomalies", textures / "test", "--normal", textures / "train", "--model", MODEL, *command)
    assert len(answers) == 18


@pytest.mark.parametrize("method", ["knn", "mahalanobis", "patches"])
def test_a_folder_beside_itself(textures: Path, method: str) -> None:
    command = ["anomalies", textures / "test", "--normal", textures / "test", "--model", MODEL, "--method", method]
    found = document(*command)
    assert min(answer["score"] for answer in found) > 0  # none is compared with itself
    assert "All images are among the normal ones: each of these is compared with the others." in run(*command).stderr
    some = run("anomalies", textures / "test", "--normal", textures / "test" / "good", *command[4:])
    assert "8 of the 18 images are among the normal ones" in some.stderr
    assert "There are 8 normal images only: what a score of 1 means is uncertain." in some.stderr


def test_files_that_cannot_be_read_are_named_and_the_rest_is_done(textures: Path, tmp_path: Path) -> None:
    data, normal = tmp_path / "data", tmp_path / "normal"
    shutil.copytree(textures / "test" / "hole", data)
    shutil.copytree(textures / "train" / "good", normal)
    (data / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (normal / "empty.png").write_bytes(b"")
    for method in ("knn", "patches"):
        result = run("anomalies", data, "--normal", normal, "--model", MODEL, "--method", method)
        assert result.exit_code == 0
        assert result.stdout.count("\n") == 5
        assert f"skipped {data / 'broken.png'}: broken PNG" in result.stderr
        assert f"skipped {normal / 'empty.png'}: the file is empty" in result.stderr
        assert "Cannot read " in refused(1, "anomalies", data, "--normal", normal, "--model", MODEL, "--method", method,
                                         "--strict")  # fmt: skip


def test_mistakes(textures: Path, tmp_path: Path) -> None:
    for folder, copies in (("one", 1), ("same", 6)):
        (tmp_path / folder).mkdir()
        for number in range(copies):
            texture(0)[0].save(tmp_path / folder / f"{number}.png")
    data = ["anomalies", textures / "test"]
    tail = ["--model", MODEL]
    one, same = ["--normal", tmp_path / "one", *tail], ["--normal", tmp_path / "same", *tail]
    for method in ("knn", "mahalanobis", "patches"):
        assert "takes two or more to see" in refused(1, *data, *one, "--method", method)
        assert "are all alike to this model" in refused(1, *data, *same, "--method", method)
    normal = ["--normal", textures / "train"]
    assert "There is no method 'luck': choose knn, " in refused(2, *data, *normal, *tail, "--method", "luck")
    out = tmp_path / "maps"
    assert "the method knn has none: use --method patches" in (
        refused(2, *data, *normal, *tail, "--method", "knn", "--out", out)
    )
    assert not out.exists()
    patchless = [*data, *normal, "--model", ONE_PATCH, "--method"]
    assert "has no grid of patches" in refused(1, *patchless, "patches")
    assert len(document(*patchless, "knn")) == 18
    assert "There is no '" in refused(1, "anomalies", tmp_path / "nothing", *normal, *tail)
    assert "There is no '" in refused(1, *data, "--normal", tmp_path / "nothing", *tail)
    evaluate = ["evaluate", MODEL, textures, "--probe"]
    assert "There is no method 'token-cut'" in refused(2, *evaluate, "anomaly", "--method", "token-cut")
    assert "A normal class is for the probe anomaly" in refused(2, *evaluate, "knn", "--normal", "good")
    assert "A method is for the probes objects and anomaly" in refused(2, *evaluate, "knn", "--method", "knn")
    assert "Refinement is for the probe objects" in refused(2, *evaluate, "anomaly", "--refine")
    assert "The probe anomaly learns from the training images" in refused(2, *evaluate, "anomaly", "--split", "train")


def test_one_image_file_is_data(textures: Path) -> None:
    file = textures / "test" / "hole" / "000.png"
    (answer,) = document("anomalies", file, "--normal", textures / "train", "--model", MODEL)
    assert answer["path"] == str(file)
    assert answer["score"] > 1


def test_measured_images_of_one_kind_only(textures: Path, tmp_path: Path) -> None:
    shutil.copytree(textures / "train", tmp_path / "train")
    shutil.copytree(textures / "test" / "hole", tmp_path / "test" / "hole")
    command = ["evaluate", MODEL, tmp_path, "--probe", "anomaly"]
    assert "All of the measured images are anomalous: it takes images of the normal class, 'good'" in (
        refused(1, *command)
    )
    assert "None of the training images is of the class 'hole'" in refused(1, *command, "--normal", "hole")


def test_ctrl_c_leaves_whole_heat_maps_only(textures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def interrupted(pixels: Tensor, heat: Tensor) -> Image.Image:
        drawn.append(heat)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return overlay(pixels, heat)

    monkeypatch.setattr("mirada.anomalies.run.overlay", interrupted)
    command = ["anomalies", textures / "test", "--normal", textures / "train", "--model", MODEL, "--out", tmp_path]
    assert refused(130, *command) == "stopped."
    assert len(list(tmp_path.iterdir())) == 2
    for file in tmp_path.iterdir():
        Image.open(file).load()
