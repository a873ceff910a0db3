"""Bringing an index up to date: what is new is embedded, what is known is not, and nothing is lost on the way.

Every commit is whole by itself: a kill at any moment leaves an index that lacks the last batch, and the next call goes
on from there.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from secrets import randbits
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mirada.caching import cache_folder
from mirada.data.dataset import Skipped
from mirada.data.decode import UndecodableImage
from mirada.data.images import Progress
from mirada.errors import MiradaError
from mirada.preprocess import Preprocess
from mirada.search.picture import Picture, picture
from mirada.search.scan import Entry, Scan, Unreachable
from mirada.search.table import Made, is_remote, rows_of, schema_of, storage

__all__ = ["Busy", "Changes", "bring_up_to_date", "writing"]

Embed = Callable[[torch.Tensor], NDArray[np.float32]]  # uint8 pixels (n, 3, H, W) -> unit vectors (n, D)

# Of what is read to score a model; vectors still agree with those of full pictures (docs/numbers/indexing.md).
ENOUGH = 0.7
AT_MOST = 512  # rows in a commit
SECONDS = 20.0  # from one commit to the next, so that a kill costs no more work than that
FRESH = 2_000_000_000  # ns; a file changed so recently may change again within the clock's tick
MANY = 32  # pieces of a table, from which on it is put together


class Busy(MiradaError):  # noqa: N818  # it passes
    """Another process holds the index for writing."""


@dataclass
class Changes:
    """What a run did; `skipped` are files and folders that could not be used, and why."""

    added: int = 0
    updated: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class _Read(NamedTuple):
    """One file, read. Without `picture` its content is known already, or `why` says what is wrong."""

    entry: Entry
    digest: bytes = b""
    picture: Picture | None = None
    pixels: torch.Tensor | None = None
    why: str | None = None
    unknown: bool = False  # whether the content may still be what it was
    began: int = 0  # ns since 1970, when it was opened


@contextmanager
def writing(where: str) -> Iterator[None]:
    """Hold the index for writing. Raises `Busy` while another process does.

    The lock ends with the process that holds it, however that ends. On object storage it holds among the processes of
    this machine; what writers of several machines double, the next run puts right.
    """
    from filelock import FileLock, Timeout

    if is_remote(where):
        folder = cache_folder("locks")
        if folder is None:
            yield
            return
        file = folder / f"{blake2b(where.encode(), digest_size=16).hexdigest()}.lock"
    else:
        file = Path(where) / ".lock"
    with storage(where):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Busy(f"Another process is writing to the index {where!r}: wait until it is done.") from None
    try:
        yield
    finally:
        lock.release()


def bring_up_to_date(
    table: Any, where: str, made: Made, found: Scan, embed: Embed, *, batch: int = 32,
    on_progress: Progress | None = None,
) -> Changes:  # fmt: skip
    """Make the table say what `found` says, with the vectors that `embed` gives. Call it while `writing`."""
    return _Update(table, where, made, found, embed).run(batch, on_progress)


class _Update:
    def __init__(self, table: Any, where: str, made: Made, found: Scan, embed: Embed) -> None:
        self.table, self.where, self.found, self.made, self.embed = table, where, found, made, embed
        self.preprocess = Preprocess.from_dict(made.preprocess)
        exact = self.preprocess.reads_at_least()
        self.at_least = None if exact is None else round(ENOUGH * exact)
        self.changes = Changes(skipped=list(found.skipped))
        self.schema = schema_of(made.dim)
        columns = ["id", "path", "raw", "source", "size", "seen", "content"]
        with storage(where):
            rows = rows_of(table, columns)
        ids, paths, raws, sources, sizes, seen, contents = (rows[name].to_pylist() for name in columns)
        keys = [path.encode() if raw is None else raw for path, raw in zip(paths, raws, strict=True)]
        self.by_key = dict(zip(keys, range(len(ids)), strict=True))
        self.stamps = list(zip(sizes, seen, strict=True))
        self.ids: list[int] = ids
        self.contents: list[bytes] = contents
        doubled = [ids[row] for row, key in enumerate(keys) if self.by_key[key] != row]  # two machines wrote at once
        here = {os.fsencode(entry.path) for entry in found.entries}
        covered = (found.covers(os.fsdecode(key), sources[row]) for key, row in self.by_key.items())
        self.gone = {ids[row] for (key, row), inside in zip(self.by_key.items(), covered, strict=True)
                     if inside and key not in here}  # fmt: skip
        self.owner: dict[bytes, list[int]] = {}  # content -> ids of rows that have it, those that are gone last
        order = sorted((row for row, key in enumerate(keys) if self.by_key[key] == row),
                       key=lambda row: ids[row] in self.gone)  # fmt: skip
        for row in order:
            self.owner.setdefault(contents[row], []).append(ids[row])
        self.new: list[dict[str, Any]] = []
        self.altered: list[dict[str, Any]] = []
        self.committed = time.monotonic()
        self._delete(doubled)

    def run(self, batch: int, on_progress: Progress | None) -> Changes:
        entries = {entry.path: entry for entry in self.found.entries}.values()  # a table may name a file twice
        pending = [entry for entry in entries if not self._is_unchanged(entry)]
        self.changes.unchanged = len(entries) - len(pending)
        chunks = [pending[start : start + batch] for start in range(0, len(pending), batch)]
        done = 0
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mirada-index") as threads:
            ahead: list[Future[_Read]] = [threads.submit(self._read, entry) for entry in (chunks[0] if chunks else [])]
            try:
                for number, chunk in enumerate(chunks):
                    waiting, following = ahead, chunks[number + 1] if number + 1 < len(chunks) else []
                    ahead = [threads.submit(self._read, entry) for entry in following]
                    self._take([future.result() for future in waiting])
                    done += len(chunk)
                    if on_progress is not None:
                        on_progress("indexing", done, len(pending))
                    if len(self.new) + len(self.altered) >= AT_MOST or time.monotonic() - self.committed > SECONDS:
                        self._commit()
            finally:
                for future in ahead:
                    future.cancel()
        self._commit()
        self.changes.removed = len(self.gone)
        self._delete(sorted(self.gone))
        self._tidy()
        return self.changes

    def _is_unchanged(self, entry: Entry) -> bool:
        row = self.by_key.get(os.fsencode(entry.path))
        return row is not None and self.stamps[row] == (entry.size, entry.time)

    def _read(self, entry: Entry) -> _Read:
        """Runs in a thread."""
        began = time.time_ns()
        try:
            data = entry.read()
        except Unreachable as error:
            return _Read(entry, why=str(error), unknown=True)
        except UndecodableImage as error:
            return _Read(entry, why=error.reason)
        digest = blake2b(data, digest_size=16).digest()
        if digest in self.owner:
            return _Read(entry, digest, began=began)
        try:
            about, image = picture(data, self.at_least)
        except UndecodableImage as error:
            return _Read(entry, why=error.reason)
        return _Read(entry, digest, about, self.preprocess.pixels(image), began=began)

    def _take(self, read: Sequence[_Read]) -> None:
        """Turn a chunk of files into rows that are yet to be committed."""
        read = [self._read(one.entry) if self._was_forgotten(one) else one for one in read]
        for one in read:
            if one.why is not None:
                self._leave_out(one)
        fresh: dict[bytes, _Read] = {one.digest: one for one in read if one.picture is not None
                                     and one.digest not in self.owner}  # fmt: skip
        vectors: dict[bytes, Any] = {}
        if fresh:
            pixels = torch.stack([one.pixels for one in fresh.values() if one.pixels is not None])
            rows = self.embed(pixels)
            if not np.isfinite(rows).all():
                first = next(iter(fresh.values())).entry.path
                raise MiradaError(f"The vectors of {first!r} and others are not finite numbers: the weights of "
                                  f"{self.made.model!r} are damaged, or its training diverged.")  # fmt: skip
            vectors = dict(zip(fresh, rows.astype(np.float16), strict=True))
            self.changes.embedded += len(fresh)
        copied = self._known([one.digest for one in read if one.why is None and one.digest not in fresh])
        for one in read:
            if one.why is None:
                about = copied.get(one.digest)
                if about is None:
                    first_read = fresh[one.digest]
                    assert first_read.picture is not None
                    about = first_read.picture._asdict() | {"vector": vectors[one.digest]}
                self._put(one, about)

    def _was_forgotten(self, one: _Read) -> bool:
        """Whether the only row with this content has changed since it was read."""
        return one.why is None and one.picture is None and one.digest not in self.owner

    def _leave_out(self, one: _Read) -> None:
        assert one.why is not None
        self.changes.skipped.append(Skipped(one.entry.path, one.why))
        row = self.by_key.get(os.fsencode(one.entry.path))
        if row is not None and not one.unknown:
            self.gone.add(self.ids[row])

    def _known(self, digests: list[bytes]) -> dict[bytes, dict[str, Any]]:
        """What the table, or a row that is yet to be committed, says of contents that were seen before."""
        wanted = {self.owner[digest][0]: digest for digest in digests}
        columns = [*Picture._fields, "vector"]
        found = {row["content"]: {name: row[name] for name in columns} for row in (*self.new, *self.altered)
                 if row["content"] in set(digests)}  # fmt: skip
        missing = [number for number, digest in wanted.items() if digest not in found]
        if missing:
            with storage(self.where):
                rows = rows_of(self.table, ["id", *columns], f"id IN ({', '.join(map(str, missing))})")
            vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
            for row, vector in zip(rows.drop(["vector"]).to_pylist(), vectors, strict=True):
                number = row.pop("id")
                found[wanted[number]] = row | {"vector": vector}
        return found

    def _put(self, one: _Read, about: dict[str, Any]) -> None:
        """A row for a file: in place of its own old one, of one whose file is gone (it moved), or beside the others."""
        entry, owners = one.entry, self.owner.setdefault(one.digest, [])
        key = os.fsencode(entry.path)
        row = self.by_key.get(key)
        moved = next((number for number in owners if number in self.gone), None) if row is None else None
        if row is not None:
            number, before = self.ids[row], self.contents[row]
            self.altered.append(self._row(number, one, about))
            self.changes.updated += before != one.digest
            self.changes.unchanged += before == one.digest
            if before != one.digest:
                self._disown(before, number)
        elif moved is not None:
            number = moved
            self.gone.discard(number)
            self.altered.append(self._row(number, one, about))
            self.changes.moved += 1
        else:
            number = randbits(52)
            self.new.append(self._row(number, one, about))
            self.changes.added += 1
        if number not in owners:
            owners.insert(0, number)

    def _disown(self, digest: bytes, number: int) -> None:
        left = [other for other in self.owner.get(digest, []) if other != number]
        if left:
            self.owner[digest] = left
        else:
            self.owner.pop(digest, None)

    def _row(self, number: int, one: _Read, about: dict[str, Any]) -> dict[str, Any]:
        raw = os.fsencode(one.entry.path)
        path = raw.decode("utf-8", "backslashreplace")
        modified = _moment(one.entry.time)
        settled = one.began - one.entry.time > FRESH
        return {
            "id": number, "path": path, "raw": None if path.encode() == raw else raw,
            "source": self.found.root if self.found.container else None, "size": one.entry.size,
            "seen": one.entry.time if settled else -1, "content": one.digest, "modified": modified,
            "date": about["taken"] or modified, **about,
        }  # fmt: skip

    def _commit(self) -> None:
        with storage(self.where):
            if self.new:
                self.table.add(self._as_table(self.new))
            if self.altered:
                merge = self.table.merge_insert("id").when_matched_update_all()
                merge.execute(self._as_table(self.altered))
        self.new, self.altered, self.committed = [], [], time.monotonic()

    def _as_table(self, rows: list[dict[str, Any]]) -> pa.Table:
        last = {row["id"]: row for row in rows}.values()
        flat = pa.array(np.concatenate([row["vector"] for row in last]))
        vectors = pa.FixedSizeListArray.from_arrays(flat, self.made.dim)
        columns = [
            vectors if field.name == "vector" else pa.array([row[field.name] for row in last], field.type)
            for field in self.schema
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _delete(self, ids: list[int]) -> None:
        with storage(self.where):
            for start in range(0, len(ids), 1000):
                self.table.delete(f"id IN ({', '.join(map(str, ids[start : start + 1000]))})")

    def _tidy(self) -> None:
        """Put small pieces together, and drop what older versions of the table held."""
        from datetime import timedelta

        with storage(self.where):
            if self.table.stats()["fragment_stats"]["num_fragments"] >= MANY:
                self.table.optimize(cleanup_older_than=timedelta(hours=1))


def _moment(nanoseconds: int) -> datetime | None:
    """The local time of a file's stamp, which may be nonsense."""
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9)
    except (OverflowError, OSError, ValueError):
        return None
