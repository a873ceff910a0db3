"""Masks of objects: how they are read, from tables and folders, and that data with masks are data like any other."""

import io
import pickle

import numpy as np
import pytest
from pictures import fill, picture, write_jsonl, write_parquet
from PIL import Image

from mirada.data.decode import UndecodableImage, decode_alpha, decode_mask
from mirada.data.sources import open_data
from mirada.data.splits import split
from mirada.errors import MiradaError

SHAPE = np.zeros((6, 9), bool)
SHAPE[1:4, 2:8] = True


def encoded(values, mode=None, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(values, mode).save(buffer, form, **options) if mode else Image.fromarray(values).save(
        buffer, form, **options
    )
    return buffer.getvalue()


def palette():
    image = Image.fromarray(SHAPE.astype(np.uint8) * 3)
    image = image.convert("P")
    image.putdata((SHAPE.astype(np.uint8) * 3).flatten().tolist())
    image.putpalette([90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])  # the first colour is not black, the fourth is
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def cutout():
    pixels = np.zeros((*SHAPE.shape, 4), np.uint8)  # a black thing
    pixels[..., 3] = np.where(SHAPE, 128, 127)
    return encoded(pixels)


MASKS = {
    "grey": encoded(SHAPE.astype(np.uint8)),
    "black and white": encoded(SHAPE),
    "colour": encoded(SHAPE[..., None] * np.array([0, 0, 7], np.uint8)),
    "16 bits": encoded(SHAPE.astype(np.uint16) * 256),
    "opaque": encoded(
        np.dstack([np.repeat(SHAPE[..., None] * np.uint8(255), 3, 2), np.full(SHAPE.shape, 255, np.uint8)])
    ),
    "palette": palette(),
    "transparent": cutout(),
}


@pytest.mark.parametrize("name", list(MASKS))
def test_masks_of_every_kind(name):
    assert (decode_mask(MASKS[name]) == SHAPE).all()
    assert (decode_alpha(MASKS[name]) is not None) == (name == "transparent")


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_mask_that_lies_on_its_side_is_turned_once(form):
    exif = Image.Exif()
    exif[0x0112] = 6
    shape = SHAPE.copy()
    shape[1, 2] = False  # not the same when it stands on its head
    assert (decode_mask(encoded(np.rot90(shape).astype(np.uint8), form=form, exif=exif)) == shape).all()


def test_a_jpeg_does_not_keep_zeros():
    large = np.kron(SHAPE, np.ones((16, 16), bool))
    assert (decode_mask(encoded(large.astype(np.uint8) * 255, form="JPEG", quality=60)) == large).mean() > 0.99


@pytest.mark.parametrize("data", [b"", b"no image", MASKS["grey"][:60]])
def test_no_mask_at_all(data):
    with pytest.raises(UndecodableImage):
        decode_mask(data)


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_parquet_with_masks_inside(tmp_path, in_memory):
    columns = {"image": [picture(number) for number in range(5)], "mask": [b"0", None, b"2", b"3", b"4"]}
    source = open_data(write_parquet(tmp_path / "a.parquet", columns, row_group_size=2), in_memory=in_memory).splits[
        "all"
    ]
    assert source.masked
    assert [source.read_mask(index) for index in range(5)] == columns["mask"]
    assert [source.read(index) for index in range(5)] == columns["image"]
    assert pickle.loads(pickle.dumps(source)).read_mask(4) == b"4"
    parts = split(source, (0.6, 0.4))
    got = {part.read(index): part.read_mask(index) for part in parts for index in range(len(part))}
    assert got == dict(zip(columns["image"], columns["mask"], strict=True))


def test_parts_of_one_split(tmp_path):
    for number, columns in enumerate(({"mask": [b"a"]}, {}, {"mask": [{"bytes": b"c", "path": None}]})):
        write_parquet(tmp_path / f"train-0000{number}-of-00003.parquet", {"image": [picture(number)]} | columns)
    source = open_data(tmp_path).splits["train"]
    assert source.masked
    assert [source.read_mask(index) for index in range(3)] == [b"a", None, b"c"]


def test_tables_of_paths(tmp_path):
    fill(tmp_path, {"1.png": 1, "2.png": 2, "3.png": 3, "m/1.png": 7})
    (tmp_path / "a.csv").write_text("path,mask\n1.png,m/1.png\n2.png,\ngone.png,m/1.png\n3.png,m/gone.png\n")
    write_jsonl(
        tmp_path / "b.jsonl",
        [{"path": "1.png", "mask": "m/1.png"}, {"path": "2.png"}, {"path": "3.png", "mask": "m/gone.png"}],
    )
    write_parquet(
        tmp_path / "c.parquet", {"path": ["1.png", "2.png", "3.png"], "mask": ["m/1.png", None, "m/gone.png"]}
    )
    for name in ("a.csv", "b.jsonl", "c.parquet"):
        source = open_data(tmp_path / name).splits["all"]
        assert source.masked
        assert [source.read_mask(0), source.read_mask(1)] == [picture(7), None]
        with pytest.raises(UndecodableImage, match="cannot be read"):
            source.read_mask(2)


def test_a_folder_of_masks_beside_the_images(tmp_path):
    fill(tmp_path, {"cat/1.png": 1, "dog/2.png": 2, "masks/cat/1.png": 7})
    data = open_data(tmp_path)
    source = data.splits["all"]
    assert data.classes == ["cat", "dog"]
    assert list(source.names) == ["cat/1.png", "dog/2.png"]
    assert [source.read_mask(0), source.read_mask(1)] == [picture(7), None]


def test_folders_images_and_masks(tmp_path):
    fill(tmp_path, {"images/1.png": 1, "images/2.png": 2, "masks/1.png": 7, "masks/2.png": 8})
    data = open_data(tmp_path)
    source = data.splits["all"]
    assert data.classes is None
    assert [source.read(0), source.read_mask(1)] == [picture(1), picture(8)]


@pytest.mark.parametrize("files", [
    {"train/a/1.png": 1, "test/a/2.png": 2, "masks/test/a/2.png": 7},
    {"train/a/1.png": 1, "test/a/2.png": 2, "test/masks/a/2.png": 7},
    {"train/a/1.png": 1, "test/images/a/2.png": 2, "test/masks/a/2.png": 7},
    {"images/train/a/1.png": 1, "images/test/a/2.png": 2, "masks/test/a/2.png": 7},
])  # fmt: skip
def test_masks_of_splits(tmp_path, files):
    fill(tmp_path, files)
    data = open_data(tmp_path)
    assert set(data.splits) == {"train", "test"}
    assert data.classes == ["a"]
    assert not data.skipped
    assert not data.splits["train"].masked
    assert data.splits["test"].read_mask(0) == picture(7)


def test_the_layout_of_mvtec(tmp_path):
    files = {"train/good/1.png": 1, "test/good/1.png": 2, "test/hole/1.png": 3}
    fill(tmp_path, files | {"ground_truth/hole/1_mask.png": 7})
    with pytest.raises(MiradaError, match="The test split has classes that the train split has not: 'hole'"):
        open_data(tmp_path)
    data = open_data(tmp_path, new_classes=True)
    assert data.classes == ["good", "hole"]
    assert not data.skipped
    test = data.splits["test"]
    assert [test.read_mask(index) for index in range(2)] == [None, picture(7)]
    assert test.labels.tolist() == [0, 1]
    assert data.splits["train"].labels.tolist() == [0]


def test_a_ground_truth_that_is_no_masks_is_left_out(tmp_path):
    fill(tmp_path, {"train/a/1.png": 1, "test/a/1.png": 2, "ground_truth/a/2_mask.png": 7})
    data = open_data(tmp_path)
    assert not data.splits["test"].masked
    assert [entry.path for entry in data.skipped] == [str(tmp_path / "ground_truth")]


def test_masks_can_be_a_class(tmp_path):
    fill(tmp_path, {"gloves/1.png": 1, "masks/1.png": 2, "masks/2.png": 3})
    data = open_data(tmp_path)
    assert data.classes == ["gloves", "masks"]
    assert not data.splits["all"].masked
    assert data.splits["all"].read_mask(0) is None
