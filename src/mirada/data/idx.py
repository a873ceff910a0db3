"""The IDX files in which MNIST and its successors are published: raw grey pixels, gzipped or not."""

import gzip
import os
import re
import zlib
from collections.abc import Sequence
from os.path import join

import numpy as np
from numpy.typing import NDArray

from mirada.data.dataset import Key, Source, why
from mirada.errors import MiradaError

__all__ = ["Pixels", "is_idx", "open_idx"]

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
IDX_FILE = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")


class Pixels(Source):
    """Raw grey images (n, height, width), handed out as PGM files: lossless, and encoded in no time."""

    def __init__(self, path: str, pixels: NDArray[np.uint8], keys: list[Key | None] | None, names: list[str]) -> None:
        root, name = os.path.split(path)
        super().__init__(root, [f"{name}#{row}" for row in range(len(pixels))], keys, dict(enumerate(names)))
        self.pixels = pixels

    def read(self, index: int) -> bytes:
        height, width = self.pixels.shape[1:]
        return f"P5 {width} {height} 255\n".encode() + bytes(self.pixels[index])


def is_idx(files: Sequence[str]) -> bool:
    return any((match := IDX_FILE.fullmatch(file)) and match[2] == "images" for file in files)


def open_idx(root: str, files: Sequence[str]) -> dict[str, Source]:
    """The training and test split; classes are "0" to "9", or Fashion-MNIST's if a folder above is called so."""
    found = {(match[1], match[2]): join(root, file) for file in files if (match := IDX_FILE.fullmatch(file))}
    parents = {re.sub(r"[^a-z]", "", part.lower()) for part in os.path.abspath(root).split(os.sep)}
    names = FASHION if "fashionmnist" in parents else []
    splits: dict[str, Source] = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        if (path := found.get((prefix, "images"))) is not None:
            pixels = _read(path, 3)
            labels = _read(found[prefix, "labels"], 1).tolist() if (prefix, "labels") in found else None
            if labels is not None and len(labels) != len(pixels):
                raise MiradaError(f"{path!r} has {len(pixels)} images, but there are {len(labels)} labels beside it.")
            splits[split] = Pixels(path, pixels, labels, names)
    return splits


def _read(path: str, dimensions: int) -> NDArray[np.uint8]:
    """Header: two zeros, the type (8: bytes), the number of dimensions, then each as a big-endian 32-bit number."""
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise MiradaError(f"Cannot read {path!r}: {why(error)}; is the file whole?") from error
    start = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:start], ">u4").astype(np.int64) if len(data) >= start else np.zeros(0, np.int64)
    if data[:4] != bytes([0, 0, 8, dimensions]) or int(np.prod(shape)) != len(data) - start:
        raise MiradaError(f"{path!r} is not an IDX file of bytes in {dimensions} dimensions, or it is cut short.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
