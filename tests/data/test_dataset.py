import pickle

import pytest
from pictures import fill, picture

from mirada.data.dataset import Files, Joined, Source, as_keys, number_classes, readable, require_classes
from mirada.data.sources import open_data
from mirada.errors import MiradaError


def source(*keys, names=None):
    return Source("", [str(number) for number in range(len(keys))], list(keys), names)


def test_keys_are_numbers_or_words_or_nothing():
    assert as_keys([3, True, 2.0, "cat", None, "", -1, float("nan")], "t") == [3, 1, 2, "cat", None, None, None, None]
    with pytest.raises(MiradaError, match=r"A label of t is 1\.5"):
        as_keys([1.5], "t")


def test_classes_are_numbered_in_the_order_of_their_keys():
    splits = {"train": source(10, 2, None, 2), "val": source(10)}
    assert number_classes(splits) == ["2", "10"]
    assert splits["train"].labels.tolist() == [1, 0, -1, 0]
    assert splits["val"].labels.tolist() == [1]
    assert splits["val"].classes == ["2", "10"]


def test_names_may_repeat_but_a_number_has_one():
    """ImageNet has two classes called crane."""
    train = source(134, 517, names={134: "crane", 517: "crane"})
    assert number_classes({"train": train}) == ["crane", "crane"]
    with pytest.raises(MiradaError, match="In t: The label 1 is called both 'cat' and 'dog'"):
        readable([1, 1], ["cat", "dog"], "t")
    with pytest.raises(MiradaError, match="The label 1 is called both 'cat' and 'dog'"):
        number_classes({"train": source(1, names={1: "cat"}), "test": source(1, names={1: "dog"})})


def test_a_class_that_train_has_not():
    with pytest.raises(MiradaError, match=r"The test split has classes that the train split has not: 'e', 'f'; add"):
        number_classes({"train": source("a", "b"), "test": source("b", "f", "e")})
    assert number_classes({"train": source("a", "b"), "val": source("a")}) == ["a", "b"]


def test_mixed_numbers_and_words():
    with pytest.raises(MiradaError, match=r"mix numbers \(1\) and words \('cat'\).*label_name"):
        number_classes({"train": source(1), "test": source("cat")})


def test_an_unlabelled_split_beside_a_labelled_one():
    splits = {"train": source("a", "b"), "test": Source("", ["1"])}
    number_classes(splits)
    assert splits["test"].labels is None
    assert splits["test"].classes == ["a", "b"]


def test_require_classes(tmp_path):
    fill(tmp_path / "flat", {"1.png": 1})
    fill(tmp_path / "one", {"cat/1.png": 1})
    fill(tmp_path / "two", {"cat/1.png": 1, "dog/1.png": 2})
    with pytest.raises(MiradaError, match="have no labels"):
        require_classes(open_data(tmp_path / "flat"))
    with pytest.raises(MiradaError, match="one class only, 'cat'"):
        require_classes(open_data(tmp_path / "one"))
    assert require_classes(open_data(tmp_path / "two")) == ["cat", "dog"]


def test_joined_sources_read_on(tmp_path):
    fill(tmp_path, {f"{number}.png": number for number in range(5)})
    root = str(tmp_path)
    joined = Joined([
        Files(root, ["0.png", "1.png"], ["a", "b"], captions=[("x",), ()]), Files(root, []), Files(root, ["2.png"]),
        Files(root, ["3.png", "4.png"], ["b", "a"]),
    ])  # fmt: skip
    assert [joined.read(index) for index in range(5)] == [picture(number) for number in range(5)]
    assert joined.keys == ["a", "b", None, "b", "a"]
    assert joined.captions == [("x",), (), (), (), ()]
    assert pickle.loads(pickle.dumps(joined)).read(3) == picture(3)
