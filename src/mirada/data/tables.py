"""Tables: .parquet with the images inside or paths to them, .csv and .jsonl with paths.

Columns: `image` (bytes, Hugging Face's struct of bytes and path, or a path) or `path` (relative to the table), and
optionally `label`, `label_name` and captions: every column `caption`, `captions` or `caption_...`, such as
`caption_es`, with a text or a list of them; and `mask`, an image of where the object is, written as `image` is.
"""

import csv
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from os.path import isfile, join
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mirada.data.dataset import (
    Captions,
    Files,
    Key,
    Skipped,
    Source,
    as_captions,
    as_keys,
    few,
    read_file,
    readable,
    why,
)
from mirada.data.decode import UndecodableImage
from mirada.data.folder import suffix
from mirada.errors import MiradaError

__all__ = ["TABLES", "Annotations", "annotations", "is_caption", "numeric", "open_table"]

TABLES = (".parquet", ".csv", ".jsonl")
ANNOTATIONS = ("path", "label", "label_name")
Columns = dict[str, list[Any]]


class Annotations(TypedDict):
    """What a table says of its images, as `Source` takes it."""

    keys: list[Key | None] | None
    class_names: dict[Key, str]
    captions: list[Captions] | None


def open_table(path: str, skipped: list[Skipped], *, in_memory: bool = True) -> Source:
    """One table as a source; rows whose file is missing are added to `skipped`."""
    if suffix(path) == ".parquet":
        return _open_parquet(path, skipped, in_memory)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            columns = _read_csv(file, path) if suffix(path) == ".csv" else _read_jsonl(file, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MiradaError(f"Cannot read the table {path!r}: {why(error)}; it must be UTF-8 text.") from error
    return _open_paths(path, columns, skipped)


def numeric(text: str) -> int | str:
    """A label from a text file: a whole number, or else a word."""
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else text


def annotations(columns: Columns, where: str) -> Annotations:
    """Labels and captions from their columns, each of which may be absent."""
    names = columns.get("label_name")
    names = names and [None if name is None else str(name) for name in names]
    labels = columns.get("label", names)
    keys = labels and as_keys(labels, where)
    captions = [values for name, values in columns.items() if is_caption(name)]
    return {
        "keys": keys,
        "class_names": readable(keys, names, where) if keys and names else {},
        "captions": [as_captions(*row) for row in zip(*captions, strict=True)] if captions else None,
    }


def is_caption(column: str) -> bool:
    return column in ("caption", "captions") or column.startswith("caption_")


def _read_csv(file: Iterator[str], path: str) -> Columns:
    table = csv.DictReader(file)
    rows = list(table)
    for number, row in enumerate(rows, 1):
        if None in row:
            raise MiradaError(f"Row {number} of {path!r} has more cells than the header: quote cells with commas.")
    columns: Columns = {name: [row[name] for row in rows] for name in table.fieldnames or ()}
    if "label" in columns:
        columns["label"] = [numeric((label or "").strip()) for label in columns["label"]]
    return columns


def _read_jsonl(file: Iterator[str], path: str) -> Columns:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                rows.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise MiradaError(f"Line {number} of {path!r} is not a JSON object: {error}.") from None
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _open_paths(path: str, columns: Columns, skipped: list[Skipped]) -> Source:
    """A source of the files named in `path` or `image`, without those that are not there."""
    paths = columns.get("path", columns.get("image"))
    if paths is None:
        raise _no_image_column(path, columns)
    root, name = os.path.split(path)
    there = [bool(file) and isfile(join(root, str(file))) for file in paths]
    if not any(there):
        raise MiradaError(
            f"None of the {len(paths)} files named in {path!r} is there; the first would be "
            f"{join(root, str(paths[0]))!r}: write paths relative to the table."
            if paths
            else f"The table {path!r} has no rows."
        )
    skipped += [
        Skipped(join(root, str(file)), f"there is no such file; {name} names it")
        if file
        else Skipped(f"{path}#{row}", "the row names no file")
        for row, (file, found) in enumerate(zip(paths, there, strict=True))
        if not found
    ]
    kept = {key: [v for v, found in zip(values, there, strict=True) if found] for key, values in columns.items()}
    files = [str(file) for file, found in zip(paths, there, strict=True) if found]
    files, kept = _with_all_captions(files, kept)
    masks = kept.get("mask") and [_file_or_bytes(mask) for mask in kept["mask"]]
    return Files(root, files, **annotations(kept, path), masks=masks)


def _with_all_captions(files: list[str], columns: Columns) -> tuple[list[str], Columns]:
    """Rows of one file that differ in nothing but their captions become one row that has all of these: many tables have
    a row for each caption."""
    names = [name for name in columns if is_caption(name)]
    if not names or len(set(files)) == len(files):
        return files, columns
    others = [columns[name] for name in ("label", "label_name", "mask") if name in columns]
    first: dict[str, int] = {}
    owner = [first.setdefault(repr((file, *said)), row) for row, (file, *said) in
             enumerate(zip(files, *others, strict=True))]  # fmt: skip
    merged: Columns = {name: [[] for _ in files] for name in names}
    for name in names:
        for row, value in zip(owner, columns[name], strict=True):
            merged[name][row] += value if isinstance(value, (list, tuple)) else [value]
    rows = sorted(first.values())
    kept = {name: [values[row] for row in rows] for name, values in (columns | merged).items()}
    return [files[row] for row in rows], kept


def _file_or_bytes(value: Any) -> str | bytes | None:
    """An image in a cell: bytes, a path, or Hugging Face's struct of both."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return value if isinstance(value, bytes) else str(value) if value else None


def _no_image_column(path: str, columns: Sequence[str] | Columns) -> MiradaError:
    return MiradaError(f"The table {path!r} has no column image or path; its columns are {few(columns, 20)}.")


class ParquetImages(Source):
    """Images inside one parquet file: all in memory, or by row group, of which the last few used are kept.

    Reading at random from a file that is not in memory is slow: shuffle within the row groups that `ends` delimits.
    """

    def __init__(self, path: str, groups: Sequence[int], in_memory: bool, masked: bool, notes: Annotations) -> None:
        root, name = os.path.split(path)
        super().__init__(root, [f"{name}#{row}" for row in range(sum(groups))], **notes)
        self.file, self.changed = path, os.stat(path).st_mtime_ns
        self.ends, self.masked = np.cumsum(groups), masked
        self.loaded = [_read_group(path, group, "image") for group in range(len(groups))] if in_memory else None

    def read(self, index: int) -> bytes:
        group = self._group(index)
        value = self._bytes(self.loaded[group] if self.loaded else self._column(group, "image"), group, index)
        if value is None:
            raise UndecodableImage("the row has no image")
        return value

    def read_mask(self, index: int) -> bytes | None:
        group = self._group(index)
        return self._bytes(self._column(group, "mask"), group, index) if self.masked else None

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self.ends, index, side="right"))

    def _column(self, group: int, name: str) -> pa.ChunkedArray:
        return _cached_group(self.file, group, name, self.changed)

    def _bytes(self, column: pa.ChunkedArray, group: int, index: int) -> bytes | None:
        value = _file_or_bytes(column[index - int(self.ends[group]) + len(column)].as_py())
        return read_file(join(self.root, value)) if isinstance(value, str) else value


_reading = threading.Lock()  # or every thread would read the same row group at once


def _cached_group(path: str, group: int, name: str, changed: int) -> pa.ChunkedArray:
    with _reading:
        return _kept_group(path, group, name, changed)


@lru_cache(maxsize=4)
def _kept_group(path: str, group: int, name: str, changed: int) -> pa.ChunkedArray:
    del changed  # part of the key, so that a rewritten file is read again
    return _read_group(path, group, name)


def _read_group(path: str, group: int, name: str) -> pa.ChunkedArray:
    with _parquet(path) as file:
        return file.read_row_group(group, columns=[name])[name]


@contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(why(error).split()).rstrip(".")
        raise MiradaError(f"Cannot read {path!r} as parquet: {reason}; is the file whole?") from error


def _open_parquet(path: str, skipped: list[Skipped], in_memory: bool) -> Source:
    with _parquet(path) as file:
        schema, layout = file.schema_arrow, file.metadata
        wanted = [name for name in schema.names if name in ANNOTATIONS or is_caption(name)]
        image = schema.field("image").type if "image" in schema.names else None
        inside = image is not None and not (pa.types.is_string(image) or pa.types.is_large_string(image))
        wanted += [] if inside else [name for name in ("image", "mask") if name in schema.names]
        columns: Columns = file.read(columns=wanted).to_pydict()
    names = _hugging_face_names(schema)
    if names and "label" in columns and "label_name" not in columns:
        table = dict(enumerate(names))
        columns["label_name"] = [table.get(key) for key in columns["label"]]
    if image is None and "path" not in columns:
        raise _no_image_column(path, schema.names)
    if not inside:
        return _open_paths(path, columns, skipped)
    if not (pa.types.is_struct(image) or pa.types.is_binary(image) or pa.types.is_large_binary(image)):
        raise MiradaError(f"The column image of {path!r} holds {image}: write the bytes of encoded image files.")
    groups = [layout.row_group(group).num_rows for group in range(layout.num_row_groups)]
    return ParquetImages(path, groups, in_memory, "mask" in schema.names, annotations(columns, path))


def _hugging_face_names(schema: pa.Schema) -> list[str]:
    """The names of the labels, which the `datasets` library keeps in the schema's metadata."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        return list(about["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return []
