"""What the server keeps of an index between requests: the model, its rows, and pictures that were sent.

Requests come in several threads at once. One lock stands before the model and the vectors, another before what takes
long, and reading rows and thumbnails waits for neither.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirada.data.decode import MAX_PIXELS, UndecodableImage, decode, open_header
from mirada.errors import MiradaError
from mirada.search.index import Hit, Index, NoSuchPicture
from mirada.search.picture import thumbnail
from mirada.search.query import Part, parse
from mirada.serve.rows import DECODERS, Rows, up_to_date

__all__ = ["NoSuchUpload", "Shelf", "Upload"]

SENT = 64  # pictures that were sent and are kept
MOST_PIXELS = 50_000_000  # of one that is sent; a JPEG, which can be decoded at a fraction of its size, may have more
LONELY = 1000  # outliers that are kept


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
        where: its place.
        lock: hold it to use `index`.
        rows: need no lock.
    """

    def __init__(self, where: str | os.PathLike[str], *, device: str = "cpu") -> None:
        self.lock, self._device = threading.RLock(), device
        self._index = Index(where, device=device)
        self.where = self._index.where
        self.rows = Rows(self.where)
        self._slow, self._slow_lock = Index(self.where), threading.Lock()
        self._found: dict[str, tuple[str, Any]] = {}
        self._sent: OrderedDict[str, Upload] = OrderedDict()

    @property
    def index(self) -> Index:
        """The index at its place, with the model. Raises `IndexGone`."""
        index = up_to_date(self._index, self._device)
        if index is not self._index:
            self._index = index
            self._sent.clear()  # another model may have made these vectors
        return index

    # --- what takes long ----------------------------------------------------------------------------------------------

    def found_once(self, key: str, find: Callable[[Index], Any]) -> Any:
        """What `find` makes of the index, kept until that changes."""
        with self._slow_lock:
            version = self.rows.version()
            known = self._found.get(key)
            if known is None or known[0] != version:
                self._slow = up_to_date(self._slow)
                known = self._found[key] = version, find(self._slow)
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
            found = self.index.vectors.of([int(one)])
        if not len(found):
            raise NoSuchPicture(int(one))
        vector: NDArray[np.float32] = found[0]
        return vector

    def send(self, data: bytes) -> Upload:
        """Take in a picture to search with. Raises `UndecodableImage`."""
        key = "u" + blake2b(data, digest_size=12).hexdigest()
        with self.lock:
            _ = self.index  # another one in its place has not seen it
            if key in self._sent:
                return self._sent[key]
        header = open_header(data)
        most = MAX_PIXELS if header.format == "JPEG" else MOST_PIXELS
        if header.width * header.height > most:
            raise UndecodableImage(f"it has {header.width}x{header.height} pixels, and {most:,} are the most")
        with self.lock:
            preprocess = self.index.embedder.model.preprocess
        with DECODERS:
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
            _ = self.index  # as in `send`
            if key not in self._sent:
                raise NoSuchUpload
            self._sent.move_to_end(key)
            return self._sent[key]
