"""What the server keeps of an index between requests: the model, the order of its rows, pictures that were sent.

Requests come in several threads at once. One lock stands before the model and the vectors, another before what takes
long, and reading rows and thumbnails waits for neither.
"""

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirada.data.decode import MAX_PIXELS, UndecodableImage, decode, open_header
from mirada.errors import MiradaError
from mirada.search.index import SHOWN, Hit, Index, NoSuchPicture
from mirada.search.picture import thumbnail
from mirada.search.query import Part, parse
from mirada.search.table import storage

__all__ = ["NoSuchUpload", "Shelf", "Upload"]

SENT = 64  # pictures that were sent and are kept
MOST_PIXELS = 50_000_000  # of one that is sent; a JPEG, which can be decoded at a fraction of its size, may have more
LONELY = 1000  # outliers that are kept
ORDERS = 16  # orders of all rows that are kept
FRESH = 1.0  # seconds for which the index counts as unchanged
DECODERS = 2  # pictures that are decoded at the same time, each of which may take half a gigabyte


class NoSuchUpload(MiradaError):  # noqa: N818  # it may have been there a moment ago
    """A picture that was sent is no longer kept."""

    def __init__(self) -> None:
        super().__init__("That picture is no longer here: drop it again.")


class Upload(NamedTuple):
    """A picture that was sent."""

    key: str  # of its content
    width: int
    height: int
    thumbnail: bytes  # WebP
    vector: NDArray[np.float32]  # (D,), of length 1


class Shelf:
    """An index that many ask at once.

    Attributes:
        index: hold `lock` to use it.
        slow: hold `slow_lock` to use it, for what takes long.
    """

    def __init__(self, where: str | os.PathLike[str], *, device: str = "cpu") -> None:
        self.index = Index(where, device=device)
        self.lock = threading.RLock()
        self.slow, self.slow_lock = Index(self.index.where), threading.Lock()
        self.decoding = threading.BoundedSemaphore(DECODERS)
        self._rows = Index(self.index.where)
        self._looking = threading.RLock()
        self._looked = -FRESH
        self._version = -1
        self._ids = np.empty(0, np.int64)  # sorted
        self._places = np.empty(0, np.uint64)  # of the same rows in the table
        self._orders: OrderedDict[tuple[str, bool, str | None], NDArray[np.int64]] = OrderedDict()
        self._found: dict[str, tuple[int, Any]] = {}
        self._sent: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        with self._looking:
            self.version()
            return len(self._ids)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """Of the table; another one once the index has changed."""
        with self._looking:
            if time.monotonic() - self._looked >= FRESH:
                with storage(self._rows.where):
                    self._rows.table.checkout_latest()
                    if self._rows.table.version != self._version:
                        self._read_places()
                self._looked = time.monotonic()
            return self._version

    def _read_places(self) -> None:
        table = self._rows.table
        found = table.search().select(["id"]).with_row_id(True).limit(max(1, table.count_rows())).to_arrow()
        ids, places = found["id"].to_numpy(), found["_rowid"].to_numpy()
        order = np.argsort(ids)
        self._ids, self._places = ids[order], places[order]
        self._orders.clear()
        self._version = table.version

    def take(self, ids: Sequence[int], columns: Sequence[str] = SHOWN) -> dict[int, dict[str, Any]]:
        """Columns of some rows by id; unknown ones are left out."""
        self.version()
        with self._looking:
            wanted = np.unique(np.asarray(ids, np.int64))
            found = np.searchsorted(self._ids, wanted)
            found = found[found < len(self._ids)]
            found = found[np.isin(self._ids[found], wanted)]
            places = self._places[found].tolist()
            table = self._rows.table
        if not places:
            return {}
        with storage(self._rows.where):
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
                self._orders[key] = self._rows.order(sort=sort, descending=descending, where=where)
                while len(self._orders) > ORDERS:
                    self._orders.popitem(last=False)
            self._orders.move_to_end(key)
            return self._orders[key]

    def original(self, number: int) -> tuple[bytes, bool]:
        """A picture's bytes, and whether they are the file's own. Where the file is gone, or one of many in an archive
        or table, the thumbnail stands in."""
        row = self.row(number, ("path", "raw", "source", "thumbnail"))
        path = row["path"] if row["raw"] is None else os.fsdecode(row["raw"])
        if row["source"] is None:
            try:
                with open(path, "rb", opener=_without_waiting) as file:
                    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        return file.read(), True
            except (OSError, ValueError):
                pass
        return row["thumbnail"], False

    def picture(self, number: int, at_least: int) -> Image.Image:
        """Decoded, at least so large if it is a JPEG; of what cannot be read any more, the thumbnail."""
        data, own = self.original(number)
        with self.decoding:
            try:
                return decode(data, at_least=at_least)
            except UndecodableImage:
                if not own:
                    raise
                return decode(self.row(number, ("thumbnail",))["thumbnail"])

    # --- what takes long ----------------------------------------------------------------------------------------------

    def found_once(self, key: str, find: Callable[[Index], Any]) -> Any:
        """What `find` makes of the index, kept until that changes."""
        with self.slow_lock:
            version = self.version()
            known = self._found.get(key)
            if known is None or known[0] != version:
                known = self._found[key] = version, find(self.slow)
            return known[1]

    def duplicates(self) -> list[list[dict[str, Any]]]:
        groups: list[list[dict[str, Any]]] = self.found_once("duplicates", lambda index: index.duplicates())
        return groups

    def outliers(self) -> list[Hit]:
        found: list[Hit] = self.found_once("outliers", lambda index: index.outliers(LONELY))
        return found

    # --- queries ------------------------------------------------------------------------------------------------------

    def terms(self, words: str, plus: Sequence[str], minus: Sequence[str]) -> list[Part]:
        """The terms of a query: words, and pictures by their id or by the key that they were sent under. Words never
        name a file of this machine."""
        parts = parse(words, None) if words.strip() or not (plus or minus) else []
        pictures = [Part(weight, vector=self._vector(one)) for chosen, weight in ((plus, 1.0), (minus, -1.0))
                    for one in chosen]  # fmt: skip
        return parts + pictures

    def _vector(self, one: str) -> NDArray[np.float32]:
        if not (one.isascii() and one.isdecimal() and len(one) < 17):
            return self.sent(one).vector
        with self.lock:
            self.index.vectors.refresh()
            found: NDArray[np.float32] = self.index.vectors.of([int(one)])
        if not len(found):
            raise NoSuchPicture(int(one))
        return found[0]

    def send(self, data: bytes) -> Upload:
        """Take in a picture to search with. Raises `UndecodableImage`."""
        key = "u" + blake2b(data, digest_size=12).hexdigest()
        with self.lock:
            if key in self._sent:
                return self._sent[key]
        header = open_header(data)
        most = MAX_PIXELS if header.format == "JPEG" else MOST_PIXELS
        if header.width * header.height > most:
            raise UndecodableImage(f"it has {header.width}x{header.height} pixels, and {most:,} are the most")
        with self.lock:
            preprocess = self.index.embedder.model.preprocess
        with self.decoding:
            image = decode(data, at_least=preprocess.reads_at_least())
            pixels, small = preprocess.pixels(image), thumbnail(image)
        with self.lock:
            vector = self.index.embedder.images(pixels[None])[0]
            self._sent[key] = Upload(key, header.width, header.height, small, vector)
            while len(self._sent) > SENT:
                self._sent.popitem(last=False)
            return self._sent[key]

    def sent(self, key: str) -> Upload:
        """A picture that was sent. Raises `NoSuchUpload`."""
        with self.lock:
            if key not in self._sent:
                raise NoSuchUpload
            self._sent.move_to_end(key)
            return self._sent[key]


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place must not make the server wait for who writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
