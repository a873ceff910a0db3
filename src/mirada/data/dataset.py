"""What every form of data becomes: named splits of encoded images, with labels numbered alike in all of them."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirada.data.decode import UndecodableImage
from mirada.errors import MiradaError

__all__ = [
    "Captions", "DataSet", "Files", "Joined", "Key", "Skipped", "Source", "as_captions", "as_keys", "few",
    "number_classes", "own_name", "readable", "require_classes", "why",
]  # fmt: skip

Key = int | str  # what the data itself calls a class, before classes are numbered
Captions = tuple[str, ...]


class Skipped(NamedTuple):
    """A sample that is left out, and why."""

    path: str
    reason: str


class Source:
    """One split: an ordered, random-access list of encoded images.

    A source holds no open file and no lock: any number of threads may read, and it can be pickled.

    Attributes:
        names: stable names below `root`, "cat/1.jpg", "train.parquet#12", "name-000.tar/0001.jpg".
        keys: the class of each sample as the data writes it, None where it has none.
        class_names: the readable name of a key, where the data has one.
        captions: those of each sample, none or more; None where no sample has one.
        masked: whether samples may have a mask, an image of where the object is, which `read_mask` gives.
        classes, labels: the names of the classes and int64 (n,), -1 without a label; set by `number_classes`.
    """

    masked = False

    def __init__(
        self, root: str, names: Sequence[str], keys: Sequence[Key | None] | None = None,
        class_names: dict[Key, str] | None = None, captions: list[Captions] | None = None,
    ) -> None:  # fmt: skip
        self.root, self.names, self.keys, self.class_names = root, names, keys, class_names or {}
        self.captions = captions if captions and any(captions) else None
        self.classes: list[str] | None = None
        self.labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """How a person would name the sample."""
        return os.path.join(self.root, self.names[index])

    def read(self, index: int) -> bytes:
        """The encoded file. Raises `UndecodableImage` where there is nothing to read."""
        raise NotImplementedError

    def read_mask(self, index: int) -> bytes | None:
        """The encoded mask, for `mirada.data.decode.decode_mask`; None where the sample has none. Raises
        `UndecodableImage` where one is named but cannot be read."""
        del index
        return None


class Files(Source):
    """One file for each image. `masks` are files below `root`, or what such files hold."""

    def __init__(
        self, root: str, names: Sequence[str], keys: Sequence[Key | None] | None = None,
        class_names: dict[Key, str] | None = None, captions: list[Captions] | None = None,
        masks: Sequence[str | bytes | None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(root, names, keys, class_names, captions)
        self.masks = masks
        self.masked = masks is not None and any(masks)

    def read(self, index: int) -> bytes:
        return read_file(self.path(index))

    def read_mask(self, index: int) -> bytes | None:
        mask = None if self.masks is None else self.masks[index]
        return read_file(os.path.join(self.root, mask)) if isinstance(mask, str) and mask else mask or None


class Joined(Source):
    """Several sources one after another: the shards or parts of one split."""

    def __init__(self, parts: Sequence[Source]) -> None:
        def joined(columns: list[Any], missing: Any) -> list[Any] | None:
            filled = [[missing] * len(p) if c is None else c for p, c in zip(parts, columns, strict=True)]
            return None if all(c is None for c in columns) else [value for column in filled for value in column]

        keys, captions = joined([part.keys for part in parts], None), joined([part.captions for part in parts], ())
        names = [name for part in parts for name in part.names]
        super().__init__(parts[0].root, names, keys, merged(part.class_names for part in parts), captions)
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.masked = any(part.masked for part in parts)

    def path(self, index: int) -> str:
        part, inside = self._place(index)
        return part.path(inside)

    def read(self, index: int) -> bytes:
        part, inside = self._place(index)
        return part.read(inside)

    def read_mask(self, index: int) -> bytes | None:
        part, inside = self._place(index)
        return part.read_mask(inside)

    def _place(self, index: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[number]
        return part, index - int(self.ends[number]) + len(part)


@dataclass
class DataSet:
    """`splits` has keys among "train", "val" and "test", or "all" where the data is not split."""

    splits: dict[str, Source]
    classes: list[str] | None
    skipped: list[Skipped]

    @property
    def captioned(self) -> bool:
        """Whether any image has a caption."""
        return any(source.captions is not None for source in self.splits.values())

    @property
    def fingerprint(self) -> str:
        """32 digits that are the same for the same names of samples, wherever they lie and whatever the folder is
        called."""
        names = sorted(name.replace(os.sep, "/") for source in self.splits.values() for name in source.names)
        return blake2b("\0".join(names).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def own_name(path: str) -> str:
    """What a file or folder is called, wherever it lies: the last part of its path, links followed."""
    return os.path.basename(os.path.realpath(path))


def read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UndecodableImage(f"cannot be read: {why(error)}") from error


def why(error: Exception) -> str:
    """What the system said, in lower case, without the path it repeats."""
    return ((error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__).lower()


def few(values: Iterable[object], most: int = 5) -> str:
    """The first values, and how many there are if that is not all of them."""
    texts = [repr(value) for value in values]
    return ", ".join(texts[:most]) + (f", ... ({len(texts)} in all)" if len(texts) > most else "")


def as_keys(values: Iterable[Any], where: str) -> list[Key | None]:
    """Raw labels as keys. None, an empty text, NaN and a negative number mean: no label."""
    return [_as_key(value, where) for value in values]


def _as_key(value: Any, where: str) -> Key | None:
    match value:
        case None | "":
            return None
        case bool() | int():
            return int(value) if value >= 0 else None
        case str():
            return value
        case float() if value != value or value.is_integer():  # pandas writes whole numbers so, if some are missing
            return int(value) if value >= 0 else None
    raise MiradaError(f"A label of {where} is {value!r}: labels are whole numbers or words.")


def as_captions(*values: Any) -> Captions:
    """Each text among the values and in the lists among them, once and without space around it; empty ones are none."""
    texts = [text for value in values for text in (value if isinstance(value, (list, tuple)) else [value])]
    return tuple(dict.fromkeys(stripped for text in texts if text is not None and (stripped := str(text).strip())))


def readable(keys: Sequence[Key | None], names: Sequence[str | None], where: str) -> dict[Key, str]:
    """The name of each key, which must be the same in all its rows."""
    pairs = {(key, name) for key, name in zip(keys, names, strict=True) if key is not None and name}
    try:
        return merged({key: name} for key, name in sorted(pairs, key=str))
    except MiradaError as error:
        raise MiradaError(f"In {where}: {error}") from None


def merged(tables: Iterable[dict[Key, str]]) -> dict[Key, str]:
    result: dict[Key, str] = {}
    for key, name in (pair for table in tables for pair in table.items()):
        if result.setdefault(key, name) != name:
            raise MiradaError(
                f"The label {key!r} is called both {result[key]!r} and {name!r}: give each label one label_name."
            )
    return result


def number_classes(splits: dict[str, Source], new_classes: bool = False) -> list[str] | None:
    """Number the classes in the order of their keys and set `classes` and `labels` of every split.

    The training split says which classes there are; others may lack some, but have no other, unless `new_classes`.
    """
    found: dict[str, set[Any]] = {
        split: {key for key in source.keys or () if key is not None} for split, source in splits.items()
    }
    every: set[Any] = set().union(*found.values())
    if not every:
        return None
    if len({type(key) for key in every}) > 1:
        raise MiradaError(
            f"The labels mix numbers ({few(sorted(key for key in every if isinstance(key, int)), 2)}) and words "
            f"({few(sorted(key for key in every if isinstance(key, str)), 2)}): use one or the other, "
            "or call the column label_name if all are names."
        )
    known: set[Any] = every if new_classes else found.get("train") or every
    for split, keys in found.items():
        if unknown := sorted(keys - known):
            raise MiradaError(
                f"The {split} split has classes that the train split has not: {few(unknown)}; "
                "add images of them to train, or take them out."
            )
    ordered = sorted(known)
    names = merged(source.class_names for source in splits.values())
    classes, numbers = [names.get(key, str(key)) for key in ordered], {key: n for n, key in enumerate(ordered)}
    for split, source in splits.items():
        source.classes = classes
        if found[split]:
            labels = (-1 if key is None else numbers[key] for key in source.keys or ())
            source.labels = np.fromiter(labels, np.int64, len(source))
    return classes


def require_classes(dataset: DataSet) -> list[str]:
    """The classes, two or more, for those who cannot do without labels."""
    advice = "put each class into a folder of its own, or use a table with a column label"
    if dataset.classes is None:
        raise MiradaError(f"These images have no labels: {advice}, or an objective that needs none, such as rotation.")
    if len(dataset.classes) < 2:
        raise MiradaError(f"There is one class only, {dataset.classes[0]!r}, and it takes two or more: {advice}.")
    return dataset.classes
