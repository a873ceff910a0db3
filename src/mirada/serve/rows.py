"""Rows, thumbnails and files of an index that is served, read by several threads at once."""

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirada.data.decode import UndecodableImage, decode, open_header
from mirada.errors import MiradaError
from mirada.search.index import SHOWN, Index, NoSuchPicture
from mirada.search.table import Made, stamp, storage

__all__ = ["DECODERS", "IndexGone", "Rows", "up_to_date"]

ORDERS = 16  # orders of all rows that are kept
FRESH = 1.0  # seconds for which the index counts as unchanged
DECODERS = threading.BoundedSemaphore(2)  # of pictures, each of which may take half a gigabyte


class IndexGone(MiradaError):  # noqa: N818  # it was there before
    """There is no index any more, or none that can be read."""


def up_to_date(index: Index, device: str = "cpu") -> Index:
    """The index, opened anew if another one has taken its place. Raises `IndexGone`."""
    if index.is_there():
        return index
    try:
        return Index(index.where, device=device)
    except MiradaError as error:
        raise IndexGone(str(error)) from error


class Rows:
    """The rows of an index, in any order."""

    def __init__(self, where: str) -> None:
        self._index = Index(where)
        self._looking = threading.RLock()
        self._looked = -FRESH
        self._version = ""
        self._ids = np.empty(0, np.int64)  # sorted
        self._places = np.empty(0, np.uint64)  # of the same rows in the table
        self._orders: OrderedDict[tuple[str, bool, str | None], NDArray[np.int64]] = OrderedDict()

    def __len__(self) -> int:
        with self._looking:
            self.version()
            return len(self._ids)

    @property
    def made(self) -> Made:
        """What the index was made with."""
        return self._index.made

    def version(self) -> str:
        """Another one once the index has changed, or another index has taken its place."""
        with self._looking:
            if time.monotonic() - self._looked >= FRESH:
                self._index = up_to_date(self._index)
                table, where = self._index.table, self._index.where
                with storage(where):
                    table.checkout_latest()
                    made = repr((where, stamp(where), self._index.made.fingerprint))
                    version = f"{blake2b(made.encode(), digest_size=4).hexdigest()}-{table.version}"
                    if version != self._version:
                        self._read_places()
                self._looked, self._version = time.monotonic(), version
            return self._version

    def _read_places(self) -> None:
        table = self._index.table
        found = table.search().select(["id"]).with_row_id(True).limit(max(1, table.count_rows())).to_arrow()
        ids, places = found["id"].to_numpy(), found["_rowid"].to_numpy()
        order = np.argsort(ids)
        self._ids, self._places = ids[order], places[order]
        self._orders.clear()

    def take(self, ids: Sequence[int], columns: Sequence[str] = SHOWN) -> dict[int, dict[str, Any]]:
        """Columns of some rows by id; unknown ones are left out."""
        self.version()
        with self._looking:
            wanted = np.unique(np.asarray(ids, np.int64))
            found = np.searchsorted(self._ids, wanted)
            found = found[found < len(self._ids)]
            found = found[np.isin(self._ids[found], wanted)]
            places = self._places[found].tolist()
            table, where = self._index.table, self._index.where
        if not places:
            return {}
        with storage(where):
            rows = table.take_row_ids(places).select(["id", *(name for name in columns if name != "id")]).to_arrow()
        return {row["id"]: row for row in rows.to_pylist()}

    def row(self, number: int, columns: Sequence[str] = SHOWN) -> dict[str, Any]:
        """Of one row. Raises `NoSuchPicture`."""
        found = self.take([number], columns)
        if not found:
            raise NoSuchPicture(number)
        return found[number]

    def order(self, sort: str, descending: bool, where: str | None) -> NDArray[np.int64]:
        """Ids in order; kept until the index changes."""
        key = (sort, descending, where)
        self.version()
        with self._looking:
            if key not in self._orders:
                self._orders[key] = self._index.order(sort=sort, descending=descending, where=where)
                while len(self._orders) > ORDERS:
                    self._orders.popitem(last=False)
            self._orders.move_to_end(key)
            return self._orders[key]

    def original(self, number: int) -> tuple[bytes, bool]:
        """A picture's bytes, and whether they are the file's own. The thumbnail stands in where the file is gone, is no
        picture any more, or lies in an archive or table."""
        row = self.row(number, ("path", "raw", "thumbnail"))
        path = row["path"] if row["raw"] is None else os.fsdecode(row["raw"])
        try:
            with open(path, "rb", opener=_without_waiting) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    data = file.read()
                    open_header(data)
                    return data, True
        except (OSError, ValueError, UndecodableImage):
            pass
        return row["thumbnail"], False

    def picture(self, number: int, at_least: int | None) -> Image.Image:
        """Decoded, at least so large if it is a JPEG, or in full; of what cannot be read any more, the thumbnail."""
        data, own = self.original(number)
        with DECODERS:
            try:
                return decode(data, at_least=at_least)
            except UndecodableImage:
                if not own:
                    raise
                return decode(self.row(number, ("thumbnail",))["thumbnail"])


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place must not make the server wait for who writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
