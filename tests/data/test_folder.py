import os

import pytest
from pictures import fill, picture

from mirada.data.decode import UndecodableImage
from mirada.data.folder import split_of
from mirada.data.sources import open_data
from mirada.errors import MiradaError


@pytest.mark.parametrize(("stem", "split"), [
    ("train", "train"), ("Train", "train"), ("val", "val"), ("valid", "val"), ("validation", "val"), ("test", "test"),
    ("val2017", "val"), ("train-00003-of-00010", "train"), ("test_01", "test"), ("training", None), ("trains", None),
    ("train_labels", None), ("cat", None),
])  # fmt: skip
def test_split_names(stem, split):
    assert split_of(stem) == split


def test_a_subfolder_for_each_class_however_deep(tmp_path):
    fill(tmp_path, {"dog/1.png": 1, "cat/2.JPG": 2, "cat/indoor/night/3.png": 3, "cat/10.png": 4})
    dataset = open_data(tmp_path)
    source = dataset.splits["all"]
    assert list(dataset.splits) == ["all"]
    assert dataset.classes == ["cat", "dog"]
    assert source.names == ["cat/10.png", "cat/2.JPG", "cat/indoor/night/3.png", "dog/1.png"]
    assert source.labels.tolist() == [0, 0, 0, 1]
    assert source.read(2) == picture(3)
    assert source.path(2) == str(tmp_path / "cat/indoor/night/3.png")
    assert source.captions is None
    assert dataset.skipped == []


def test_flat_and_unlabelled(tmp_path):
    dataset = open_data(fill(tmp_path, {"b.png": 1, "a.png": 2}))
    assert dataset.classes is None
    assert dataset.splits["all"].labels is None
    assert dataset.splits["all"].names == ["a.png", "b.png"]


def test_loose_images_beside_classes_have_no_label(tmp_path):
    source = open_data(fill(tmp_path, {"cat/1.png": 1, "dog/1.png": 2, "loose.png": 3})).splits["all"]
    assert source.labels.tolist() == [0, 1, -1]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path, val):
    fill(tmp_path, {"train/cat/1.png": 1, "train/dog/1.png": 2, f"{val}/cat/1.png": 3, "test/dog/1.png": 4})
    dataset = open_data(tmp_path)
    assert {split: source.labels.tolist() for split, source in dataset.splits.items()} == {
        "train": [0, 1], "val": [0], "test": [1],
    }  # fmt: skip
    assert dataset.splits["val"].names == [f"{val}/cat/1.png"]


def test_flat_split_folders(tmp_path):
    dataset = open_data(fill(tmp_path, {"train/1.png": 1, "test/2.png": 2}))
    assert dataset.classes is None
    assert {split: len(source) for split, source in dataset.splits.items()} == {"train": 1, "test": 1}


def test_a_class_called_train(tmp_path):
    dataset = open_data(fill(tmp_path, {"train/1.png": 1, "bus/1.png": 2, "car/1.png": 3}))
    assert dataset.classes == ["bus", "car", "train"]


def test_folders_beside_the_splits_are_skipped_with_a_reason(tmp_path):
    fill(tmp_path, {"train/a/1.png": 1, "test/a/1.png": 2, "unlabelled/1.png": 3, "preview.png": 4, "notes.txt": "x"})
    dataset = open_data(tmp_path)
    assert sorted(dataset.splits) == ["test", "train"]
    assert {os.path.basename(skipped.path) for skipped in dataset.skipped} == {"unlabelled", "preview.png"}
    with pytest.raises(MiradaError, match="outside the split folders"):
        open_data(tmp_path, strict=True)


def test_two_folders_for_one_split(tmp_path):
    with pytest.raises(MiradaError, match=r"Both .* mean val"):
        open_data(fill(tmp_path, {"train/1.png": 1, "val/1.png": 2, "valid/1.png": 3}))


def test_classes_of_test_that_train_has_not(tmp_path):
    with pytest.raises(MiradaError, match="The test split has classes that the train split has not: 'bird'"):
        open_data(fill(tmp_path, {"train/cat/1.png": 1, "test/bird/1.png": 2}))


def test_hidden_and_other_files_are_ignored(tmp_path):
    fill(tmp_path, {"a/1.png": 1, "a/.2.png": 2, ".cache/3.png": 3, "__MACOSX/4.png": 4, "a/Thumbs.db": "x"})
    fill(tmp_path, {"a/.DS_Store": "x", "b/readme.txt": "x", "a/1.json": "{}", "empty/.keep": ""})
    dataset = open_data(tmp_path)
    assert dataset.splits["all"].names == ["a/1.png"]
    assert dataset.classes == ["a"]


def test_the_lines_of_a_text_beside_an_image_are_its_captions(tmp_path):
    fill(
        tmp_path,
        {"a/1.png": 1, "a/1.txt": " A blue square.\n\nUn cuadrado azul.\n", "a/2.png": 2, "a/3.JPG": 3,
         "a/3.TXT": "A camera's", "notes.txt": "not a caption"},
    )  # fmt: skip
    wanted = [("A blue square.", "Un cuadrado azul."), (), ("A camera's",)]
    assert open_data(tmp_path).splits["all"].captions == wanted


@pytest.mark.parametrize("name", [
    "line\nbreak.png", "tab\tand 'quotes\" .png", "猫 ñandú 🦙.png", "%2e%2e.png", "-rf.png", "a#1.png", "{0..3}.png",
    "x" * 250 + ".png", os.fsdecode(b"latin-\xf1.png"),
])  # fmt: skip
def test_hostile_names(tmp_path, name):
    try:
        folder = fill(tmp_path / "da\nta {1..2}", {f"cl ass\n/{name}": 7})
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    source = open_data(folder).splits["all"]
    assert source.read(0) == picture(7)
    assert source.classes == ["cl ass\n"]


def test_links_are_followed_once(tmp_path):
    fill(tmp_path / "data", {"a/1.png": 1})
    fill(tmp_path / "elsewhere", {"2.png": 2})
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data")
    assert open_data(tmp_path / "data").splits["all"].names == ["a/1.png", "b/2.png"]


def test_a_folder_keeps_its_own_name_whatever_links_to_it(tmp_path):
    fill(tmp_path / "data", {"cat/1.png": 1, "dog/1.png": 2})
    (tmp_path / "data/pets").symlink_to("cat")
    (tmp_path / "data/dog/more").symlink_to("../cat")
    assert open_data(tmp_path / "data").splits["all"].names == ["cat/1.png", "dog/1.png"]


def test_a_link_in_a_circle_is_a_file_that_cannot_be_read(tmp_path):
    fill(tmp_path, {"cat/1.png": 1, "dog/1.png": 2})
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "cat/2.png").symlink_to("2.png")
    source = open_data(tmp_path).splits["all"]
    assert source.names == ["cat/1.png", "cat/2.png", "dog/1.png"]
    with pytest.raises(UndecodableImage, match="too many levels"):
        source.read(1)


def test_a_link_that_may_not_be_followed_is_not_passed_over(tmp_path, monkeypatch):
    fill(tmp_path / "data", {"cat/1.png": 1, "dog/1.png": 2})
    scandir = os.scandir

    class Locked:
        name = "dog"

        def is_dir(self):
            raise PermissionError(13, "Permission denied")

    def locked(folder):
        return [Locked() if entry.name == "dog" else entry for entry in scandir(folder)]

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(MiradaError, match=r"Cannot read the folder .*: permission denied"):
        open_data(tmp_path / "data")


def test_a_file_that_goes_away_is_undecodable(tmp_path):
    source = open_data(fill(tmp_path, {"1.png": 1})).splits["all"]
    (tmp_path / "1.png").unlink()
    with pytest.raises(UndecodableImage, match="cannot be read: no such file"):
        source.read(0)


def test_an_unreadable_folder(tmp_path, monkeypatch):
    fill(tmp_path, {"cat/1.png": 1, "dog/1.png": 2})
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("dog"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MiradaError, match=r"Cannot read the folder '.*dog': permission denied"):
        open_data(tmp_path)
