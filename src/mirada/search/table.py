"""The table of an index: one row for each picture file, in LanceDB, in a folder or on object storage.

A row holds all that is known of a file, so that every change is one atomic commit. What belongs to the index as a
whole and never changes (its format, its model) is in the table's schema; what is measured anew (background, vector
index) is in a small table of facts beside it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pyarrow as pa

from mirada.errors import MiradaError

__all__ = [
    "FORMAT", "Facts", "Made", "create_table", "exists", "is_remote", "lancedb_module", "location", "open_table",
    "rows_of", "schema_of", "stamp", "storage",
]  # fmt: skip

FORMAT = 1
TABLE, FACTS, BORN = "images", "facts", ".born"
TIDY = 16  # changes of the facts, after which older ones are dropped
Table = Any  # lancedb's own


class Made(NamedTuple):
    """What an index was made with; a query that differs in it is refused.

    Attributes:
        format: of the table.
        model: the reference, a folder as an absolute path.
        fingerprint: of the model's weights and preprocessing.
        preprocess: the pixels that the model was given.
        dim: numbers in a vector.
        words: whether the model has a text tower.
    """

    format: int
    model: str
    fingerprint: str
    preprocess: dict[str, Any]
    dim: int
    words: bool


def lancedb_module() -> ModuleType:
    """LanceDB, or a `MiradaError` that says how to get it."""
    os.environ.setdefault("LANCE_LOG", "error")  # its advice to programmers would stand among what a person reads
    try:
        import lancedb
    except ImportError as error:
        raise MiradaError(
            "An index needs LanceDB, which is not installed: run pip install 'mirada[search]'."
        ) from error
    module: ModuleType = lancedb
    return module


def is_remote(where: str) -> bool:
    """Whether the index lies on object storage: s3://bucket/name and the like."""
    return "://" in where


def location(where: str | os.PathLike[str]) -> str:
    """The index's address, the same from every working folder."""
    text = os.fspath(where)
    return text.rstrip("/") if is_remote(text) else os.path.abspath(os.path.expanduser(text))


def schema_of(dim: int) -> pa.Schema:
    """The columns. Times are local and without a zone, as cameras write them."""
    time = pa.timestamp("us")
    return pa.schema([
        pa.field("id", pa.int64(), nullable=False),  # below 2^53, so that a browser can hold it
        pa.field("path", pa.string(), nullable=False),  # absolute; bytes that are no text are spelled out
        pa.field("raw", pa.binary()),  # the path's bytes, where `path` is spelled out
        pa.field("source", pa.string()),  # the table or archive it came from; None for a file of its own
        pa.field("size", pa.int64(), nullable=False),  # bytes
        pa.field("seen", pa.int64(), nullable=False),  # the file's time in ns, -1 if it may have changed since
        pa.field("content", pa.binary(16), nullable=False),  # hash of the bytes
        pa.field("modified", time),
        pa.field("taken", time),  # by the camera's clock
        pa.field("date", time),  # taken, or else modified
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("camera", pa.string()),
        pa.field("width", pa.int32()),  # upright, in pixels
        pa.field("height", pa.int32()),
        pa.field("phash", pa.int64()),  # perceptual hash, 64 bits
        pa.field("thumbnail", pa.binary()),  # WebP
        pa.field("vector", pa.list_(pa.float16(), dim), nullable=False),  # of length 1
    ])  # fmt: skip


def exists(where: str) -> bool:
    """Whether there is an index at this `location`. A folder without a version is what a kill left of one that was
    about to be made."""
    with storage(where):
        if not is_remote(where):
            try:
                names = os.listdir(Path(where) / f"{TABLE}.lance" / "_versions")
            except (FileNotFoundError, NotADirectoryError):
                return False
            return any(name.endswith(".manifest") for name in names)
        return TABLE in lancedb_module().connect(where).list_tables().tables


def stamp(where: str) -> tuple[int, int, int] | None:
    """What tells an index from another one at the same place: its folder as the file system knows it, and the time of a
    file that is written with it, since its own changes as rows are deleted and indexed. None on object storage, where
    nobody knows."""
    if is_remote(where):
        return None
    try:
        facts = born = os.stat(Path(where) / f"{TABLE}.lance")
        with suppress(FileNotFoundError):
            born = os.stat(Path(where) / BORN)
    except OSError:
        return (0, 0, 0)
    return facts.st_dev, facts.st_ino, born.st_ctime_ns


def require_room(where: str) -> None:
    """Raise `MiradaError` where no index can be made: LanceDB is missing, or the folder holds something else."""
    lancedb_module()
    if is_remote(where) or not os.path.exists(where):
        return
    if not os.path.isdir(where):
        raise MiradaError(f"{where!r} is a file: give --index a new folder.")
    others = [name for name in os.listdir(where) if name[0] != "."]
    if others and (others != [f"{TABLE}.lance"] or exists(where)):  # half of one may be made anew
        raise MiradaError(f"{where!r} holds other things already: give --index a new folder.")


def create_table(where: str, made: Made) -> Table:
    """An empty index. Raises `MiradaError` where there can be none."""
    require_room(where)
    schema = schema_of(made.dim).with_metadata({"mirada": json.dumps(made._asdict())})
    with storage(where):
        table = lancedb_module().connect(where).create_table(TABLE, schema=schema)
        if not is_remote(where):
            (Path(where) / BORN).write_bytes(b"")
        return table


def open_table(where: str) -> tuple[Table, Made]:
    """The table and what it was made with.

    Raises:
        MiradaError: there is none, it is of another version, or it is damaged.
    """
    lancedb = lancedb_module()
    if not exists(where):
        raise MiradaError(f"There is no index in {where!r}: make one with `mirada index PHOTOS --index {where}`.")
    with storage(where):
        table = lancedb.connect(where).open_table(TABLE)
        metadata = (table.schema.metadata or {}).get(b"mirada")
    try:
        values = json.loads(metadata or b"null")
        version = int(values["format"])
        made = Made(**values) if version == FORMAT else None
    except (KeyError, TypeError, ValueError) as error:
        raise MiradaError(f"{where!r} is not an index of Mirada's, or is damaged: make another folder.") from error
    if made is None and version > FORMAT:
        raise MiradaError(f"The index {where!r} was written by a newer Mirada (format {version}, this one reads "
                          f"{FORMAT}): upgrade Mirada.")  # fmt: skip
    if made is None:
        raise MiradaError(f"The index {where!r} was written by an older Mirada (format {version}, this one reads "
                          f"{FORMAT}): make it anew with `mirada index PHOTOS --index NEW`.")  # fmt: skip
    return table, made


def rows_of(table: Table, columns: Sequence[str], where: str | None = None) -> pa.Table:
    """Columns of all rows, or of those that a safe condition holds for."""
    query = table.search().select(list(columns))
    return (query if where is None else query.where(where)).limit(max(1, table.count_rows())).to_arrow()


class Facts:
    """Small named documents beside the table: what was measured, and of which rows."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._table: Table = None

    def get(self, name: str) -> bytes | None:
        """What was last put there."""
        with storage(self._where):
            if self._table is None:
                database = lancedb_module().connect(self._where)
                if FACTS not in database.list_tables().tables:
                    return None
                try:
                    self._table = database.open_table(FACTS)
                except ValueError:  # killed while it was made
                    return None
            self._table.checkout_latest()
            found = self._table.search().where(f"name = '{name}'").limit(1).to_arrow()
        return found["value"][0].as_py() if found.num_rows else None

    def put(self, name: str, value: bytes) -> None:
        schema = pa.schema([pa.field("name", pa.string()), pa.field("value", pa.binary())])
        row = pa.table({"name": [name], "value": [value]}, schema=schema)
        with storage(self._where):
            table = lancedb_module().connect(self._where).create_table(FACTS, schema=schema, exist_ok=True)
            table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all().execute(row)
            if table.version % TIDY == 0:  # every version is kept whole until then
                with suppress(RuntimeError, OSError, ValueError):  # another writer is at it; what was put is there
                    table.optimize(cleanup_older_than=timedelta(hours=1))
            self._table = table


@contextmanager
def storage(where: str) -> Iterator[None]:
    """What goes wrong between here and the disk, said in one sentence."""
    try:
        yield
    except MiradaError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        text = " ".join(str(error).split())
        if "No space left" in text or "os error 28" in text:
            reason, advice = "the disk is full", "free some space and run the same command again"
        elif "Permission denied" in text or "Read-only" in text:
            reason, advice = "permission denied", "give yourself access to it, or choose another --index"
        else:
            reason, advice = text[:300], "see whether it is complete and can be reached"
        raise MiradaError(
            f"Cannot use the index {where!r} ({reason}): {advice}; what was indexed before is kept."
        ) from error
