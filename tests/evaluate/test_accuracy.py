"""Accuracy, its interval and its confusions, against numbers worked out elsewhere; and labels matched by name."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mirada.backbones import build
from mirada.data.dataset import DataSet, Source
from mirada.errors import MiradaError
from mirada.evaluate.accuracy import accuracy, confusion, wilson_interval
from mirada.evaluate.predict import Predictions, evaluation_images, predict
from mirada.evaluate.run import choose_split, evaluate, match_classes
from mirada.model import Model
from mirada.preprocess import Preprocess

NEGATIVE = -30.0


def predictions(said: list[int], labels: list[int], classes: int = 3) -> Predictions:
    logits = torch.full((len(said), classes), NEGATIVE)
    logits[range(len(said)), said] = 0.0
    return Predictions(np.arange(len(said)), np.array(labels), logits)


def model(classes: list[str] | None) -> Model:
    head = None if classes is None else torch.nn.Linear(64, len(classes))
    return Model(
        "vit-pico/8(depth=1, image_size=16)", build("vit-pico/8(depth=1, image_size=16)"),
        Preprocess(size=(16, 16)), head=head, classes=classes,
    )  # fmt: skip


def source(classes: list[str] | None, labels: list[int] | None) -> Source:
    made = Source("", [str(number) for number in range(len(labels or [0, 0]))])
    made.classes, made.labels = classes, None if labels is None else np.array(labels)
    return made


@pytest.mark.parametrize(("right", "count", "low", "high"), [
    (0, 10, 0.0, 0.27753279),  # R: prop.test(0, 10, correct=FALSE)
    (10, 10, 0.72246721, 1.0),
    (15, 50, 0.19103360, 0.43750664),  # statsmodels: proportion_confint(15, 50, method="wilson")
    (81, 263, 0.25526561, 0.36619043),  # Newcombe 1998, table I: 0.2553 to 0.3662
    (1, 29, 0.00611287, 0.17175522),  # Newcombe 1998, table I: 0.0061 to 0.1718
])  # fmt: skip
def test_wilson_interval(right: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(right / count, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_wilson_interval_solves_its_equation(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count)) / count
    low, high = wilson_interval(right, count)
    assert 0 <= low <= right + 1e-12
    assert right - 1e-12 <= high <= 1
    for edge in (low, high):
        if 1e-9 < edge < 1 - 1e-9:  # |right - edge| is z standard errors of a share of `edge`
            assert abs(right - edge) == pytest.approx(1.959964 * math.sqrt(edge * (1 - edge) / count), abs=1e-9)


def test_accuracy_and_balanced_accuracy() -> None:
    found = dict(accuracy(predictions([0, 0, 0, 1, 2], [0, 0, 0, 0, 2])))
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1) / 2)  # a class without images has no say
    assert found["loss"] == pytest.approx(-NEGATIVE / 5, abs=1e-5)


def test_images_without_a_label_take_no_part() -> None:
    whole = dict(accuracy(predictions([0, 1, 2, 2], [0, 1, -1, -1])))
    assert whole == dict(accuracy(predictions([0, 1], [0, 1])))
    assert confusion(predictions([0, 1, 2, 2], [0, 1, -1, 0]), 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    with pytest.raises(MiradaError, match="None of these images has a label"):
        dict(accuracy(predictions([0], [-1])))


def test_confusion_against_a_loop() -> None:
    random = np.random.default_rng(0)
    said, labels = random.integers(0, 4, 100).tolist(), random.integers(-1, 4, 100).tolist()
    counts = np.zeros((4, 4), int)
    for answer, truth in zip(said, labels, strict=True):
        if truth >= 0:
            counts[truth, answer] += 1
    assert np.array_equal(confusion(predictions(said, labels, 4), 4), counts)


def test_classes_are_matched_by_name_whatever_their_order() -> None:
    known = model(["ant", "bee", "cat"])
    assert match_classes(known, source(["bee", "cat", "ant"], [0, 1, 2, -1])).tolist() == [1, 2, 0, -1]
    assert match_classes(known, source(["cat"], [0, -1, 0])).tolist() == [2, -1, 2]
    cranes = model(["ant", "crane", "cat", "crane"])  # ImageNet has two
    assert match_classes(cranes, source(["crane", "ant", "crane"], [0, 1, 2, -1])).tolist() == [1, 0, 3, -1]
    with pytest.raises(MiradaError, match="does not know the class 'dog': it knows ant, bee, cat"):
        match_classes(known, source(["cat", "dog"], [0, 1]))
    with pytest.raises(MiradaError, match="have no labels"):
        match_classes(known, source(None, None))
    with pytest.raises(MiradaError, match="no classification head"):
        match_classes(model(None), source(["cat"], [0]))


def test_the_split_that_is_measured() -> None:
    def chosen(names: list[str], wanted: str | None, seed: int | None = None) -> tuple[str, int]:
        dataset = DataSet({name: source(["a", "b"], [0, 1] * 10) for name in names}, ["a", "b"], [])
        name, part, _ = choose_split(dataset, wanted, seed)
        return name, len(part)

    assert chosen(["train", "val", "test"], None) == ("test", 20)
    assert chosen(["train", "val"], None) == ("val", 20)
    assert chosen(["train"], None) == ("train", 20)
    assert chosen(["all"], None) == ("all", 20)
    assert chosen(["train", "test"], "train", seed=0) == ("train", 20)
    assert chosen(["all"], None, seed=0) == ("val", 4)
    assert chosen(["all"], "train", seed=0) == ("train", 16)
    assert chosen(["all"], "all", seed=0) == ("all", 20)
    assert chosen(["train"], None, seed=0) == ("val", 4)
    assert chosen(["train"], "val", seed=0) == ("val", 4)
    assert chosen(["train"], "train", seed=0) == ("train", 20)
    with pytest.raises(MiradaError, match="no split 'val': there is all"):
        chosen(["all"], "val")


def test_a_limit_is_spread_over_data_sorted_by_class(folder_of_shapes, trained_run) -> None:  # type: ignore[no-untyped-def]
    from mirada.data.sources import open_data
    from mirada.loading import load

    trained, whole = load(trained_run), open_data(folder_of_shapes).splits["all"]
    images = evaluation_images(trained, whole)
    assert np.bincount(predict(trained, images, limit=30).labels).tolist() == [10, 10, 10]
    every = predict(trained, images, batch=7)
    assert every.places.tolist() == list(range(90))
    torch.testing.assert_close(every.logits, predict(trained, images, batch=64).logits)
    assert whole.labels is not None
    whole.labels[::2] = -1
    assert predict(trained, images, limit=30).labels.min() == 0


def test_evaluate_reports_progress(folder_of_shapes, trained_run) -> None:  # type: ignore[no-untyped-def]
    told: list[tuple[str, int, int]] = []
    evaluate(str(trained_run), str(folder_of_shapes), split="all", batch=32, on_progress=lambda *row: told.append(row))
    assert told == [("measuring", 1, 3), ("measuring", 2, 3), ("measuring", 3, 3)]
