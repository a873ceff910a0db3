import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from mirada.data.decode import decode
from mirada.data.sources import open_data
from mirada.errors import MiradaError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def write_idx(path: Path, values: np.ndarray) -> None:
    data = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def digits(folder: Path, ending: str = ".gz") -> np.ndarray:
    images = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    for prefix, count in (("train", 5), ("t10k", 2)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", images[:count])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", np.array([3, 0, 3, 9, 1], np.uint8)[:count])
    return images


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_pixels_survive(tmp_path, ending):
    images = digits(tmp_path / "digits", ending)
    dataset = open_data(tmp_path / "digits")
    source = dataset.splits["train"]
    assert list(dataset.splits) == ["train", "test"]
    assert dataset.classes == ["0", "1", "3", "9"]
    assert source.labels.tolist() == [2, 0, 2, 3, 1]
    assert source.path(4) == str(tmp_path / f"digits/train-images-idx3-ubyte{ending}#4")
    assert (np.asarray(decode(source.read(4)))[..., 1] == images[4]).all()


def test_fashion_mnist_has_its_names(tmp_path):
    digits(tmp_path / "Fashion-MNIST")
    assert open_data(tmp_path / "Fashion-MNIST").classes == ["T-shirt/top", "Trouser", "Dress", "Ankle boot"]


def test_labels_may_be_missing(tmp_path):
    digits(tmp_path / "a")
    for file in (tmp_path / "a").glob("*labels*"):
        file.unlink()
    assert open_data(tmp_path / "a").classes is None


def test_bad_files(tmp_path):
    digits(tmp_path / "a")
    path = tmp_path / "a/train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-20], b"", gzip.compress(gzip.decompress(whole)[:-1]), gzip.compress(b"\0\0\x0d\3")):
        path.write_bytes(content)
        with pytest.raises(MiradaError, match=r"is the file whole|or it is cut short"):
            open_data(tmp_path / "a")
    write_idx(path, np.zeros((4, 2, 2), np.uint8))
    with pytest.raises(MiradaError, match="has 4 images, but there are 5 labels"):
        open_data(tmp_path / "a")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_the_real_fashion_mnist():
    dataset = open_data(DEBIAN)
    assert {split: len(source) for split, source in dataset.splits.items()} == {"train": 60_000, "test": 10_000}
    assert dataset.classes[9] == "Ankle boot"
    assert np.bincount(dataset.splits["train"].labels).tolist() == [6000] * 10
    assert decode(dataset.splits["test"].read(0)).size == (28, 28)
