import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import fill, picture

from mirada.data.dataset import Source, number_classes
from mirada.data.sources import open_data
from mirada.data.splits import Subset, portions, split, train_and_validation
from mirada.errors import MiradaError


def source(keys, names=None):
    made = Source("root", names or [f"{number}.png" for number in range(len(keys))], list(keys))
    number_classes({"all": made})
    return made


def names(parts):
    return [set(part.names) for part in parts]


@given(st.integers(0, 300), st.sampled_from([(0.8, 0.2), (0.7, 0.1, 0.2), (0.99, 0.01), (1.0,)]))
def test_portions(count, fractions):
    found = portions(count, fractions)
    assert sum(found) == count
    assert (min(found) >= 1) == (count >= len(fractions))
    if count >= 1 / min(fractions):
        assert all(abs(have - fraction * count) < 1 for have, fraction in zip(found, fractions, strict=True))


def test_every_class_is_in_both_parts():
    keys = ["a"] * 50 + ["b"] * 10 + ["c"] * 2 + ["d"]
    train, rest = split(source(keys), (0.8, 0.2))
    assert np.bincount(train.labels).tolist() == [40, 8, 1, 1]
    assert np.bincount(rest.labels).tolist() == [10, 2, 1]
    assert not set(train.names) & set(rest.names)


def test_the_order_of_listing_and_the_place_do_not_matter():
    keys = [number % 3 for number in range(60)]
    listed = [f"{number}.png" for number in range(60)]
    shuffled = np.random.default_rng(0).permutation(60)
    one = split(source(keys, listed), (0.8, 0.2), 5)
    other = source([keys[index] for index in shuffled], [listed[index] for index in shuffled])
    other.root = "elsewhere"
    assert names(one) == names(split(other, (0.8, 0.2), 5))
    assert names(one) != names(split(source(keys, listed), (0.8, 0.2), 6))


def test_the_separator_of_the_system_does_not_matter(monkeypatch):
    listed = [f"{kind}/{number}.jpg" for kind in ("cat", "dog") for number in range(20)]
    here = names(split(source([0] * 40, listed), (0.8, 0.2)))
    monkeypatch.setattr("os.sep", "\\")
    there = names(split(source([0] * 40, [name.replace("/", "\\") for name in listed]), (0.8, 0.2)))
    assert [{name.replace("\\", "/") for name in part} for part in there] == here


def test_a_few_more_files_move_few_others():
    before = split(source([None] * 1000), (0.8, 0.2))
    after = split(source([None] * 1010), (0.8, 0.2))
    assert len(names(before)[0] - names(after)[0]) < 20


def test_the_split_stays_what_it_was():
    """Golden: changing it would mix what old checkpoints trained on with what they are measured on."""
    assert split(source("ababababab"), (0.6, 0.4), 1)[1].names == ["1.png", "2.png", "6.png", "7.png"]


@pytest.mark.parametrize("fractions", [(0.5, 0.6), (1.0, 0.0), (1.2, -0.2)])
def test_impossible_fractions(fractions):
    with pytest.raises(MiradaError, match="add up to 1"):
        split(source("ab"), fractions)


def test_subset_is_a_view(tmp_path):
    fill(tmp_path, {"a/1.png": 1, "a/1.txt": "one", "b/2.png": 2, "b/3.png": 3})
    whole = open_data(tmp_path).splits["all"]
    part = Subset(whole, [2, 0])
    assert part.names == ["b/3.png", "a/1.png"]
    assert part.labels.tolist() == [1, 0]
    assert part.captions == [(), ("one",)]
    assert part.classes == ["a", "b"]
    assert part.read(0) == picture(3)
    assert part.path(1) == whole.path(0)
    assert Subset(part, [1]).read(0) == picture(1)


def classes(*folders, per_class=10):
    return {
        f"{folder}/{name}/{number}.png": number for folder in folders for name in "ab" for number in range(per_class)
    }


def test_train_and_validation_takes_what_is_there(tmp_path):
    dataset = open_data(fill(tmp_path, classes("train", "val", "test")))
    train, validation, name, notes = train_and_validation(dataset)
    assert (train, validation, name, notes) == (dataset.splits["train"], dataset.splits["val"], "val", [])


def test_without_val_the_test_split_is_called_so(tmp_path):
    dataset = open_data(fill(tmp_path, classes("train", "test")))
    assert train_and_validation(dataset).name == "test"
    held = train_and_validation(dataset, hold_out=0.1)
    assert (held.name, len(held.train), len(held.validation)) == ("val", 18, 2)


@pytest.mark.parametrize("folders", [("train",), (".",)])
def test_one_split_only_is_cut(tmp_path, folders):
    made = train_and_validation(open_data(fill(tmp_path, classes(*folders))), seed=3)
    assert (made.name, len(made.train), len(made.validation)) == ("val", 16, 4)
    assert all(one.labels is not None for one in made[:2])


def test_a_class_with_one_image_is_trained_on_and_noted(tmp_path):
    made = train_and_validation(open_data(fill(tmp_path, classes(".") | {"alone/1.png": 1})))
    assert "alone/1.png" in made.train.names
    assert made.notes == ["Classes with one image are trained on but not measured: 'alone'."]


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(MiradaError, match="nothing to train on, only test"):
        train_and_validation(open_data(fill(tmp_path / "a", classes("test"))))
    with pytest.raises(MiradaError, match=r"one image only, .*add more"):
        train_and_validation(open_data(fill(tmp_path / "b", {"1.png": 1})))
