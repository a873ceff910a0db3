import os
from pathlib import Path

import pytest
from pictures import fill, picture, write_tar

from mirada.data.decode import decode
from mirada.data.sources import list_images, open_data
from mirada.errors import MiradaError

SHARED = Path(os.environ.get("MIRADA_DATA", "no-data"))  # a folder of real data sets, where there is one


def fails(path, message):
    with pytest.raises(MiradaError, match=message) as error:
        open_data(path)
    assert "\n" not in str(error.value)


def test_hugging_face_is_not_read_yet():
    fails("hf:cifar10", "save the data set as parquet")


def test_an_empty_folder(tmp_path):
    fails(tmp_path, r"no images in .* \(the folder is empty\): give")
    fill(tmp_path, {"notes.md": "x", "sub/.DS_Store": "x"})
    fails(tmp_path, r"no images in .* \(only 'notes.md'\): give")


def test_nothing_there_names_the_nearest(tmp_path):
    fill(tmp_path, {"pictures/1.png": 1})
    fails(tmp_path / "picture", r"There is no '.*picture', .*: did you mean '.*/pictures'\?")
    fails(tmp_path / "pictuers/train", r"has no 'pictuers': did you mean")
    fails(tmp_path / "zzz", "check the path")
    fails(tmp_path / "pictures/1.png/x", r"There is no")


def test_other_files_are_no_data(tmp_path):
    fails(fill(tmp_path, {"1.png": 1}) / "1.png", "Cannot read .* as data: give a folder")


def test_an_unreadable_parent(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        with pytest.raises(MiradaError, match=r"Cannot open '/secret/data' \(permission denied\)"):
            open_data("/secret/data")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_impossible_paths(path):
    fails(path, "Cannot open")


def test_shards_beside_the_folder_they_came_from_are_ignored(tmp_path):
    fill(tmp_path, {"train/cat/1.png": 1, "train/dog/2.png": 2})
    write_tar(tmp_path / "train.tar", {"1.png": picture(1)})
    assert open_data(tmp_path).classes == ["cat", "dog"]


def test_list_images_keeps_the_order_given(tmp_path):
    fill(tmp_path, {"b.png": 1, "folder/c.png": 2, "folder/notes.txt": "x", "a.png": 3})
    source = list_images([tmp_path / "b.png", str(tmp_path / "folder"), tmp_path / "a.png"])
    assert [os.path.relpath(source.path(index), tmp_path) for index in range(3)] == ["b.png", "folder/c.png", "a.png"]
    assert source.read(2) == picture(3)
    with pytest.raises(MiradaError, match="There is no"):
        list_images([tmp_path / "gone.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MiradaError, match="There are no images in"):
        list_images([tmp_path / "empty"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data sets")
@pytest.mark.parametrize(("name", "sizes", "classes"), [
    ("cifar10", {"train": 50_000, "test": 10_000}, 10),
    ("grocery", {"train": 2640, "val": 296, "test": 2485}, 81),
    ("imagenet1k_sample", {"all": 1000}, 1000),
    ("tuxpaint", {"all": 945}, None),
])  # fmt: skip
def test_real_data_sets(name, sizes, classes):
    dataset = open_data(SHARED / name)
    assert {split: len(source) for split, source in dataset.splits.items()} == sizes
    assert (dataset.classes and len(dataset.classes)) == classes
    for source in dataset.splits.values():
        assert decode(source.read(len(source) - 1)).mode == "RGB"
