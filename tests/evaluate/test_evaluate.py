"""The probes of features on real files: what they learn from, what they measure, and what they say of bad input."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shapes import make_shapes

import mirada.evaluate.run as module
from mirada.classify import classify
from mirada.data.sources import open_data
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.run import evaluate, seeds_of_split
from mirada.loading import load

MODEL = "vit-pico/8(image_size=24)"
LEARNING = ["knn", "linear", "attentive", "few-shot"]
PROBES = [*LEARNING, "retrieval"]


def measured(data: Path, probe: str, **options: Any) -> dict[str, Any]:
    return evaluate(MODEL, str(data), probe=probe, **options)


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    """Four training images of each class, two test images."""
    folder = make_shapes(tmp_path / "divided" / "train", 6)
    for file in sorted(folder.glob("*/00[45].png")):
        target = tmp_path / "divided" / "test" / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        file.rename(target / file.name)
    return tmp_path / "divided"


@pytest.mark.parametrize("probe", PROBES)
def test_a_model_without_a_head(folder_of_shapes: Path, probe: str) -> None:
    found = measured(folder_of_shapes, probe)
    whole = probe == "retrieval"  # needs no other images to learn from
    assert (found["probe"], found["split"], found["n"]) == (probe, *(("all", 90) if whole else ("val", 18)))
    score = found["metrics"]["mAP" if whole else "accuracy"]
    assert score >= (0.5 if whole else 0.9)  # three colours
    assert 0 <= found["interval"][0] < score <= found["interval"][1] <= 1
    assert found["notes"] == ([] if whole else ["72 of these images are learned from, and the other 18 measured."])


@pytest.mark.parametrize("probe", PROBES)
def test_the_same_twice_and_whatever_the_global_seed(
    folder_of_shapes: Path, probe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured(folder_of_shapes, probe, seed=3)
    monkeypatch.setenv("MIRADA_CACHE", "")
    state = torch.get_rng_state()
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    again = measured(folder_of_shapes, probe, seed=3)
    assert torch.get_rng_state().equal(expected)
    torch.set_rng_state(state)
    assert again["metrics"] == pytest.approx(first["metrics"], abs=1e-4)


@pytest.mark.parametrize("probe", PROBES)
def test_a_split_is_measured_by_the_train_split(divided: Path, probe: str) -> None:
    found = measured(divided, probe)
    assert (found["split"], found["n"]) == ("test", 6)
    notes = ["The class 'blue' has 4 of the training images, so there is no score for 5 and 10 per class."]
    assert found["notes"] == (notes if probe == "few-shot" else [])
    with pytest.raises(MiradaError, match="no split 'val': there is test, train"):
        measured(divided, probe, split="val")


def test_labels_are_matched_by_name(divided: Path) -> None:
    """The test split lacks the first class, so its own numbering would be another."""
    shutil.rmtree(divided / "test" / "blue")
    for probe in LEARNING:
        found = measured(divided, probe)
        assert found["n"] == 4
        assert found["metrics"]["accuracy"] >= 0.75


@pytest.mark.parametrize("probe", ["linear", "few-shot"])
def test_where_the_seed_goes(
    folder_of_shapes: Path, trained_run: Path, probe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To what a probe draws; and to the division of undivided data, unless the model's training divided them."""
    drawn: list[int] = []
    divided: list[int] = []
    divide = module.choose_training

    def spy(dataset, wanted, seed):
        divided.append(seed)
        return divide(dataset, wanted, seed)

    def stand_in(*_: object, seed: int, **__: object) -> list[tuple[str, float]]:
        drawn.append(seed)
        return [("1-shot/std", 0.0), ("accuracy", 0.5)]

    monkeypatch.setattr(module, "choose_training", spy)
    monkeypatch.setattr(module, probe.replace("-", "_"), stand_in)
    for ref in (MODEL, str(trained_run)):
        evaluate(ref, str(folder_of_shapes), probe=probe, seed=4)
    assert drawn == [4, 4]
    assert divided == [4, 0]


def test_images_that_cannot_be_read_are_listed(divided: Path) -> None:
    for file in ("train/red/000.png", "test/blue/005.png"):
        (divided / file).write_text("no image")
    for _ in range(2):  # from the cache too
        found = measured(divided, "knn")
        assert found["n"] == 5
        assert [Path(entry["path"]).name for entry in found["skipped"]] == ["000.png", "005.png"]
    with pytest.raises(MiradaError, match="Cannot read"):
        measured(divided, "knn", strict=True)


def test_progress(folder_of_shapes: Path) -> None:
    told: list[str] = []
    measured(folder_of_shapes, "linear", batch=32, on_progress=lambda what, *_: told.append(what))
    assert told[:4] == ["encoding"] * 4
    assert set(told[4:]) == {"fitting"}


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", LEARNING)
@pytest.mark.parametrize("split", ["train", "all"])
def test_images_are_not_compared_with_themselves(folder_of_shapes: Path, probe: str, split: str) -> None:
    with pytest.raises(Misuse, match=f"The probe {probe} learns from the training images, so --split {split} would"):
        measured(folder_of_shapes, probe, split=split)


def test_a_probe_that_is_not_there(folder_of_shapes: Path) -> None:
    probes = "choose accuracy, knn, linear, attentive, few-shot, zero-shot, retrieval, objects or anomaly"
    with pytest.raises(Misuse, match=f"no probe 'luck': {probes}"):
        measured(folder_of_shapes, "luck")


@pytest.mark.parametrize("probe", PROBES)
def test_no_labels_and_one_class(new_shapes: Callable[[int], Path], probe: str) -> None:
    folder = new_shapes(3)
    with pytest.raises(MiradaError, match=f"These images have no labels: {probe} needs a folder per class"):
        measured(folder / "red", probe)
    shutil.rmtree(folder / "red")
    shutil.rmtree(folder / "blue")
    with pytest.raises(MiradaError, match="There is one class only, 'green'"):
        measured(folder, probe)


@pytest.mark.parametrize("probe", PROBES)
def test_one_image(tmp_path: Path, new_shapes: Callable[[int], Path], probe: str) -> None:
    (tmp_path / "one" / "red").mkdir(parents=True)
    shutil.copy(new_shapes(1) / "red" / "000.png", tmp_path / "one" / "red")
    with pytest.raises(MiradaError, match="There is one class only, 'red'"):
        measured(tmp_path / "one", probe)


@pytest.mark.parametrize("probe", LEARNING)
def test_one_image_of_each_class(new_shapes: Callable[[int], Path], probe: str) -> None:
    with pytest.raises(MiradaError, match="nothing is left to measure"):
        measured(new_shapes(1), probe)


@pytest.mark.parametrize("probe", LEARNING)
def test_a_class_that_training_lacks(divided: Path, probe: str) -> None:
    for file in (divided / "train" / "red").iterdir():
        file.write_text("no image")
    with pytest.raises(MiradaError, match="No training image that can be read is of the class 'red': add images"):
        measured(divided, probe)
    shutil.rmtree(divided / "train" / "red")
    with pytest.raises(MiradaError, match="The test split has classes that the train split has not: 'red'"):
        measured(divided, probe)


@pytest.mark.parametrize("probe", LEARNING)
def test_one_class_is_left_to_learn_from(divided: Path, probe: str) -> None:
    for colour in ("red", "blue"):
        for file in (divided / "train" / colour).iterdir():
            file.write_text("no image")
        shutil.rmtree(divided / "test" / colour)
    with pytest.raises(MiradaError, match="All training images that can be read are of the class 'green'"):
        measured(divided, probe)


@pytest.mark.parametrize("probe", PROBES)
def test_a_split_without_labels(divided: Path, probe: str) -> None:
    for number, file in enumerate(sorted((divided / "test").glob("*/*.png"))):
        file.rename(divided / "test" / f"{number}.png")
    for folder in (divided / "test").glob("*/"):
        folder.rmdir()
    with pytest.raises(MiradaError, match="None of the measured images has a label"):
        measured(divided, probe)


@pytest.mark.parametrize("probe", LEARNING)
def test_nothing_to_learn_from(divided: Path, probe: str) -> None:
    shutil.rmtree(divided / "train")
    with pytest.raises(MiradaError, match="nothing to train on, only test: add a train split"):
        measured(divided, probe)
    assert measured(divided, "retrieval")["n"] == 6


def test_who_taught_a_model_is_known_through_blends_and_fine_tuning(new_shapes: Callable[[int], Path]) -> None:
    model, folder = load(MODEL), new_shapes(10)
    data = open_data(str(folder))
    first = {"data": folder.name, "seed": 3}
    model.provenance = {"blend": ["a", "b"], "weight": 0.5, "of": [{}, {"data": "others", "seed": 1, "of": [first]}]}
    assert seeds_of_split(model, str(folder), data) == [3]
    model.provenance = {"data": folder.name, "seed": 0, "of": [first]}
    assert seeds_of_split(model, str(folder), data) == [3, 0]
    model.provenance["of"] = [first | {"seed": 0}]
    assert seeds_of_split(model, str(folder), data) == [0]
    assert seeds_of_split(model, "elsewhere", data) == []
    model.provenance = {"data": "photos", "names": data.fingerprint, "seed": 5}
    assert seeds_of_split(model, "Photos-moved", data) == [5]
    first = next(folder.rglob("*.png"))
    first.rename(first.with_stem("another"))
    assert seeds_of_split(model, "Photos-moved", open_data(str(folder))) == []


def test_a_model_trained_on_two_divisions_has_seen_what_it_is_measured_on(
    new_shapes: Callable[[int], Path], tmp_path: Path
) -> None:
    model, folder = load(MODEL), new_shapes(10)
    of = [{"data": folder.name, "seed": 1}]
    for name, earlier in (("twice", of), ("once", [])):
        model.provenance = {"data": folder.name, "seed": 0, "of": earlier}
        found = evaluate(str(model.save(tmp_path / name)), str(folder), probe="knn")
        assert any("with the seeds 1, 0" in note for note in found["notes"]) == bool(earlier)


def test_damaged_weights_have_no_accuracy(trained_run: Path, folder_of_shapes: Path, tmp_path: Path) -> None:
    model = load(str(trained_run))
    with torch.no_grad():
        next(model.backbone.parameters()).fill_(torch.nan)
    model.save(tmp_path / "broken")
    with pytest.raises(MiradaError, match="are not finite numbers: the weights of"):
        evaluate(str(tmp_path / "broken"), str(folder_of_shapes))
    with pytest.raises(MiradaError, match="are not finite numbers: the weights of"):
        classify(str(tmp_path / "broken"), [folder_of_shapes])
