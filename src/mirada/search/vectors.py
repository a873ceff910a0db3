"""Nearest vectors of a table: all compared in memory while they are few, IVF-HNSW on disk when they are many."""

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirada.search.apart import start_apart
from mirada.search.table import Facts, is_remote, open_table, rows_of, storage

__all__ = [
    "EXACT_UP_TO", "Nearest", "Vectors", "as_matrix", "as_stored", "build_index", "build_index_apart",
    "build_index_once", "needs_index", "product",
]  # fmt: skip

EXACT_UP_TO = 50_000  # rows; where comparing all of 512 numbers takes as long as IVF-HNSW (docs/numbers/search.md)
GROWN = 0.1  # share of rows outside the vector index, from which on it is built anew
SAMPLE = 4096  # rows that stand for all where these are not in memory
PARTITION = 200_000  # rows of a graph; fewer and larger ones find more in less time
PROBES = 20  # partitions that are searched
EFFORT = 100  # candidates in each, at least
REFINE = 2  # times as many as asked for are compared exactly
QUERIES = 200  # on which recall is measured


class Nearest(NamedTuple):
    """The nearest rows, best first."""

    ids: NDArray[np.int64]  # (k,)
    scores: NDArray[np.float32]  # (k,) cosines


class Vectors:
    """The vectors of a table, as they were when it was last looked at."""

    def __init__(self, table: Any, where: str, exact_up_to: int | None = None) -> None:
        self.table, self.where = table, where
        self.exact_up_to = EXACT_UP_TO if exact_up_to is None else exact_up_to
        self.version = -1
        self.rows = 0
        self.ids = np.empty(0, np.int64)  # of `matrix`
        self.matrix = np.empty((0, 0), np.float32)  # all vectors, or a sample of them
        self.whole = True  # whether it is all of them
        self.paths: list[str] = []  # of all of them, if it is
        self._places: dict[int, int] = {}

    def refresh(self) -> bool:
        """Look whether the table has changed; returns whether it has."""
        with storage(self.where):
            self.table.checkout_latest()
            if self.table.version == self.version:
                return False
            version, self.rows = self.table.version, self.table.count_rows()
            self.whole = self.rows <= self.exact_up_to
            if self.whole:
                found = rows_of(self.table, ["id", "path", "vector"])
                self.paths = found["path"].to_pylist()
            else:
                chosen = np.sort(np.random.default_rng(0).choice(self.rows, SAMPLE, replace=False))
                found = self.table.take_offsets(chosen.tolist()).select(["id", "vector"]).to_arrow()
        self.ids, self.matrix = found["id"].to_numpy(), as_matrix(found)
        self._places = dict(zip(self.ids.tolist(), range(len(self.ids)), strict=True)) if self.whole else {}
        self.version = version
        return True

    def place(self, number: int) -> int | None:
        """Where in `matrix` the row with this id is, if all rows are there."""
        return self._places.get(number)

    def background(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines of a unit vector with all rows, or with the sample."""
        return product(self.matrix, query)

    def nearest(self, query: NDArray[np.float32], k: int, condition: str | None = None) -> Nearest:
        """The `k` rows nearest to a unit vector (D,), of those that the condition holds for."""
        if self.whole:
            scores = self.background(query)
            if condition is not None:
                with storage(self.where):
                    allowed = rows_of(self.table, ["id"], condition)["id"].to_numpy()
                inside = np.isin(self.ids, allowed)
                best = np.flatnonzero(inside)[_best(scores[inside], k)]
            else:
                best = _best(scores, k)
            return Nearest(self.ids[best], scores[best])
        with storage(self.where):
            search = self.table.search(query).distance_type("cosine").select(["id", "_distance"]).limit(k)
            few = False
            if condition is not None:
                search = search.where(condition, prefilter=True)
                few = self.table.count_rows(condition) <= self.exact_up_to
            if few:  # comparing them all costs less than a search that has to step around the others
                search = search.bypass_vector_index()
            else:
                search = search.nprobes(PROBES).ef(max(EFFORT, 2 * k)).refine_factor(REFINE)
            found = search.to_arrow()
        return Nearest(found["id"].to_numpy(), 1 - found["_distance"].to_numpy())

    def of(self, ids: list[int]) -> NDArray[np.float32]:
        """The vectors (n, D) of some rows, in their order; of unknown ones none."""
        if self.whole:
            return self.matrix[[place for number in ids if (place := self.place(number)) is not None]]
        with storage(self.where):
            found = rows_of(self.table, ["id", "vector"], f"id IN ({', '.join(map(str, ids))})") if ids else None
        if found is None:
            return self.matrix[:0]
        known = dict(zip(found["id"].to_pylist(), as_matrix(found), strict=True))
        return np.stack([known[number] for number in ids if number in known]) if known else self.matrix[:0]


def as_matrix(rows: Any) -> NDArray[np.float32]:
    """The column `vector` as float32 (n, D)."""
    return as_stored(rows).astype(np.float32)


def as_stored(rows: Any) -> NDArray[np.float16]:
    """The column `vector`, float16 (n, D)."""
    column = rows["vector"].combine_chunks()
    width = rows.schema.field("vector").type.list_size
    matrix: NDArray[np.float16] = column.flatten().to_numpy().reshape(-1, width)
    return matrix


def product(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """`one @ other`, by PyTorch: NumPy's threads (OpenBLAS) wait for more work by spinning, and slow down the network
    that encodes the next words to half its speed."""
    import torch

    result: NDArray[np.float32] = (torch.from_numpy(one) @ torch.from_numpy(other)).numpy()
    return result


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the k largest, best first."""
    if k < len(scores):
        some = np.argpartition(-scores, k)[:k]
        return some[np.argsort(-scores[some], kind="stable")]
    return np.argsort(-scores, kind="stable")


def needs_index(table: Any, exact_up_to: int | None = None) -> bool:
    """Whether the table has outgrown comparing everything and has no vector index yet, or one that lacks many rows."""
    rows = table.count_rows()
    if rows <= (EXACT_UP_TO if exact_up_to is None else exact_up_to):
        return False
    built = [index.name for index in table.list_indices() if "vector" in index.columns]
    stats = table.index_stats(built[0]) if built else None
    return stats is None or stats.num_unindexed_rows > GROWN * rows


def build_index(where: str) -> dict[str, float]:
    """Build the vector index of a table, and measure and store how many true neighbours it finds."""
    from lancedb.index import HnswSq

    table, _ = open_table(where)
    began = time.monotonic()
    with storage(where):
        rows = table.count_rows()
        partitions = max(1, round(rows / PARTITION))
        table.create_index("vector", config=HnswSq(distance_type="cosine", num_partitions=partitions), replace=True)
    seconds = time.monotonic() - began
    facts = {"rows": float(rows), "seconds": round(seconds, 1), "recall": round(recall(Vectors(table, where, 0)), 4)}
    Facts(where).put("vector index", json.dumps(facts).encode())
    return facts


def recall(vectors: Vectors, k: int = 10) -> float:
    """The share of the k true nearest neighbours that are found, over some rows of the table as queries."""
    vectors.refresh()
    queries = vectors.matrix[:: max(1, len(vectors.matrix) // QUERIES)][:QUERIES]
    found = 0
    for query in queries:
        with storage(vectors.where):
            exact = vectors.table.search(query).distance_type("cosine").select(["id", "_distance"])
            truth = exact.bypass_vector_index().limit(k).to_arrow()["id"].to_pylist()
        found += len(set(truth) & set(vectors.nearest(query, k).ids.tolist()))
    return found / (k * len(queries))


def build_index_apart(where: str) -> None:
    """Build it in a process of its own, which goes on when this one ends."""
    start_apart("mirada.search.vectors", where)


def build_index_once(where: str) -> None:
    """Build it, unless another process is at it."""
    from filelock import FileLock, Timeout

    open_table(where)  # or else the lock would make a folder where none is
    if is_remote(where):
        build_index(where)
        return
    try:
        with FileLock(Path(where) / ".vectors.lock", timeout=0):
            build_index(where)
    except Timeout:
        return


if __name__ == "__main__":
    build_index_once(sys.argv[1])
