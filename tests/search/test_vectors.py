"""Nearest vectors, exact and approximate, with and without conditions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock

import mirada.search.vectors as vectors_module
from mirada.search.filters import condition
from mirada.search.table import FORMAT, Facts, Made, create_table, open_table
from mirada.search.vectors import Vectors, build_index, build_index_once, needs_index


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    """A table of 6,000 clustered vectors with a vector index."""
    where = str(tmp_path_factory.mktemp("large") / "index")
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((60, 32))[draw.integers(60, size=6000)] + 0.7 * draw.standard_normal((6000, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    table = create_table(where, Made(FORMAT, "(none)", "", {}, 32, False))
    values = {
        "id": np.arange(6000), "path": [f"/{number % 10}/{number}.jpg" for number in range(6000)],
        "size": np.arange(6000), "seen": np.zeros(6000, np.int64), "content": [bytes(16)] * 6000,
    }  # fmt: skip
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float16).reshape(-1)), 32)
        if field.name == "vector"
        else pa.array(values.get(field.name, [None] * 6000), field.type)
        for field in table.schema
    ]
    table.add(pa.Table.from_arrays(columns, schema=table.schema))
    assert needs_index(table, 5000)
    facts = build_index(where)
    assert facts["rows"] == 6000
    assert facts["recall"] >= 0.97
    return where, rows.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("exact_up_to", [10_000, 1000])
@pytest.mark.parametrize("where", [None, "size < 3000", "path like '/3/%'", "size in (1, 2, 3)"])
def test_conditions_lose_no_recall(large: tuple[str, np.ndarray], exact_up_to: int, where: str | None) -> None:
    place, matrix = large
    table, _ = open_table(place)
    vectors = Vectors(table, place, exact_up_to)
    vectors.refresh()
    assert vectors.whole == (exact_up_to == 10_000)
    numbers = np.arange(6000)
    masks = {None: numbers >= 0, "size < 3000": numbers < 3000, "path like '/3/%'": numbers % 10 == 3}
    inside = np.flatnonzero(masks.get(where, np.isin(numbers, (1, 2, 3))))
    found = total = 0
    for query in matrix[::200]:
        truth = inside[np.argsort(-(matrix[inside] @ query))[:10]]
        nearest = vectors.nearest(query, 10, None if where is None else condition(where))
        assert set(nearest.ids) <= set(inside)
        assert (np.diff(nearest.scores) <= 1e-6).all()
        np.testing.assert_allclose(nearest.scores, matrix[nearest.ids] @ query, atol=2e-3)
        found, total = found + len(set(nearest.ids) & set(truth)), total + len(truth)
    assert found / total >= (1 if exact_up_to == 10_000 else 0.97)


def test_what_was_measured_is_kept(large: tuple[str, np.ndarray]) -> None:
    place, _ = large
    assert b'"recall"' in (Facts(place).get("vector index") or b"")
    table, _ = open_table(place)
    assert not needs_index(table, 5000)
    assert not needs_index(table)


def test_one_process_at_a_time_builds(indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(vectors_module, "build_index", built.append)
    with FileLock(Path(indexed[1]) / ".vectors.lock"):
        build_index_once(indexed[1])
    assert built == []
    build_index_once(indexed[1])
    assert built == [indexed[1]]
