"""What an index holds, and what a run changed in it."""

from pathlib import Path
from typing import Any

import numpy as np

from mirada.search.index import Index
from mirada.search.table import rows_of
from mirada.search.vectors import as_matrix


def contents(where: str) -> dict[str, np.ndarray]:
    rows = rows_of(Index(where).table, ["path", "vector"])
    assert len(set(rows["path"].to_pylist())) == rows.num_rows
    return dict(zip(rows["path"].to_pylist(), as_matrix(rows), strict=True))


def counts(folder: Path, where: str, **options: Any) -> tuple[int, int, int, int, int]:
    _, changes = Index.update(folder, where, **options)
    return changes.added, changes.updated, changes.moved, changes.removed, changes.embedded
