"""Parts of a source: what is trained on and what is measured on."""

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirada.data.dataset import DataSet, Source, few
from mirada.errors import MiradaError

__all__ = ["Subset", "TrainAndValidation", "split", "train_and_validation", "with_captions"]


class Subset(Source):
    """Some samples of a source, in the order of `indices`; classes keep their numbers."""

    def __init__(self, source: Source, indices: ArrayLike) -> None:
        self.source, self.indices = source, np.asarray(indices, np.int64)
        chosen: list[int] = self.indices.tolist()
        captions = source.captions and [source.captions[index] for index in chosen]
        keys = source.keys and [source.keys[index] for index in chosen]
        super().__init__(source.root, [source.names[index] for index in chosen], keys, source.class_names, captions)
        self.classes = source.classes
        self.labels = None if source.labels is None else source.labels[self.indices]
        self.masked = source.masked

    def path(self, index: int) -> str:
        return self.source.path(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        return self.source.read(int(self.indices[index]))

    def read_mask(self, index: int) -> bytes | None:
        return self.source.read_mask(int(self.indices[index]))


class TrainAndValidation(NamedTuple):
    """What to train on, what to measure on, and what the latter truly is: "val" or "test"."""

    train: Source
    validation: Source
    name: str
    notes: list[str]  # sentences about the split that a person should see


def train_and_validation(dataset: DataSet, seed: int = 0, *, hold_out: float | None = None) -> TrainAndValidation:
    """The validation split if there is one; else, without a test split, 20% of the images.

    With train and test only, the test split is measured on and called so. Whoever chooses anything by the score gives
    `hold_out`: that fraction of the training split, which then is "val".
    """
    splits = dataset.splits
    source = splits.get("train", splits.get("all"))
    if source is None:
        raise MiradaError(f"There is nothing to train on, only {', '.join(splits)}: add a train split.")
    if "val" in splits:
        return TrainAndValidation(source, splits["val"], "val", [])
    if "test" in splits and hold_out is None:
        return TrainAndValidation(source, splits["test"], "test", [])
    if len(source) < 2:
        raise MiradaError(f"There is one image only, {source.path(0)!r}: add more, some of them to measure on.")
    held_out = 0.2 if hold_out is None else hold_out
    train, validation = split(source, (1 - held_out, held_out), seed)
    return TrainAndValidation(train, validation, "val", _single_images(source))


def with_captions(parts: TrainAndValidation) -> TrainAndValidation:
    """Only the images that have a caption; a note says how many have none. Raises `MiradaError` if there are fewer than
    two to train on."""
    train, validation = _captioned(parts.train), _captioned(parts.validation)
    if len(train) < 2:
        raise MiradaError(
            f"{len(train) or 'None'} of the {len(parts.train):,} training images has a caption: put a .txt beside each "
            "image, or use a table with a column caption."
        )
    left = len(parts.train) - len(train)
    note = f"{left:,} of the {len(parts.train):,} training images have no caption and take no part."
    return TrainAndValidation(train, validation, parts.name, [*parts.notes, *([note] if left else [])])


def _captioned(source: Source) -> Source:
    captions = source.captions or []
    return source if captions and all(captions) else Subset(source, np.flatnonzero([bool(one) for one in captions]))


def _single_images(source: Source) -> list[str]:
    if source.labels is None or source.classes is None:
        return []
    counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes))
    alone = [name for name, count in zip(source.classes, counts, strict=True) if count == 1]
    return [f"Classes with one image are trained on but not measured: {few(alone)}."] if alone else []


def split(source: Source, fractions: Sequence[float], seed: int = 0) -> list[Subset]:
    """Cut a source into parts, class by class, in the order of a hash of seed and name.

    The same files fall into the same parts in whatever order they are listed and wherever the data lies, and a few
    more files move few others.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise MiradaError(f"Cannot split by {tuple(fractions)}: fractions are above 0 and add up to 1.")
    order = np.argsort(
        np.array([_hash(seed, name.replace(os.sep, "/")) for name in source.names], np.uint64), kind="stable"
    )
    labels = np.zeros(len(source), np.int64) if source.labels is None else source.labels
    parts: list[list[NDArray[np.int64]]] = [[] for _ in fractions]
    by_class = order[np.argsort(labels[order], kind="stable")]
    for members in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
        ends = np.cumsum(portions(len(members), fractions))
        for part, chosen in zip(parts, np.split(members, ends[:-1]), strict=True):
            part.append(chosen)
    return [Subset(source, np.sort(np.concatenate(part))) for part in parts]


def portions(count: int, fractions: Sequence[float]) -> list[int]:
    """How many of `count` each part gets: at least one each while there are enough, the first part first, and
    otherwise as near to the fractions as whole numbers come."""
    wanted = np.array(fractions) * count
    least = np.arange(len(fractions)) < count
    have = np.maximum(np.floor(wanted).astype(np.int64), least)
    while have.sum() < count:
        have[np.argmax(wanted - have)] += 1
    while have.sum() > count:
        have[np.argmax(np.where(have > least, have - wanted, -np.inf))] -= 1
    return [int(number) for number in have]


def _hash(seed: int, name: str) -> int:
    digest = blake2b(f"{seed}\0{name}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
