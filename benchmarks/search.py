"""How fast the nearest of many vectors are found, and how many of them.

    python benchmarks/search.py make DIR        # 200,000 x 512 clustered vectors as an index; two minutes
    python benchmarks/search.py build DIR       # its vector index; two minutes
    python benchmarks/search.py measure DIR     # writes docs/numbers/search.md; one minute
    python benchmarks/search.py make MORE --rows 1000000        # then build, and measure --report FILE

The vectors are synthetic: 2,000 centres drawn from a normal distribution, each vector a centre plus normal noise of 0.8
of its size, all scaled to length 1 (seed 0). Queries are made the same way and are none of the vectors. Use a machine
that does nothing else.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from mirada.search.table import FORMAT, Made, create_table, location, open_table
from mirada.search.vectors import Vectors, as_matrix, build_index
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "search.md"
DIM, CENTRES, NOISE, QUERIES, K = 512, 2000, 0.8, 200, 10


def vectors(count: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIM), np.float32)
    draw = np.random.default_rng([seed, 1])
    rows = centres[draw.integers(CENTRES, size=count)] + NOISE * draw.standard_normal((count, DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(where: str, count: int) -> None:
    made = Made(FORMAT, "(none)", "", {}, DIM, False)
    table = create_table(where, made)
    schema = table.schema
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        values = {
            "id": np.arange(start, start + size), "path": [f"/{number % 100}/{number}.jpg" for number in
                                                           range(start, start + size)],
            "size": np.arange(start, start + size), "seen": np.zeros(size, np.int64), "content": [bytes(16)] * size,
        }  # fmt: skip
        flat = pa.array(vectors(size, start + 1).astype(np.float16).reshape(-1))
        columns = [
            pa.FixedSizeListArray.from_arrays(flat, DIM) if field.name == "vector"
            else pa.array(values.get(field.name, [None] * size), field.type)
            for field in schema
        ]  # fmt: skip
        table.add(pa.Table.from_arrays(columns, schema=schema))


def timed(function: Callable[[np.ndarray], Any], queries: np.ndarray) -> tuple[float, list[Any]]:
    """Milliseconds for each, the median, after ten to warm up."""
    for query in queries[:10]:
        function(query)
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(function(query))
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times)), found


def measure(where: str) -> str:
    table, _ = open_table(location(where))
    queries = vectors(QUERIES, 999_999_999)
    rows = table.count_rows()
    ours = Vectors(table, location(where))
    ours.refresh()
    assert not ours.whole
    begins = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent, found = timed(lambda query: ours.nearest(query, K).ids.tolist(), queries)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    half, some = "size % 2 = 0", "path LIKE '/7/%'"
    lines, filtered = [], {}
    for condition in (half, some):
        filtered[condition] = timed(lambda query, c=condition: ours.nearest(query, K, c).ids.tolist(), queries[:100])
    matrix = as_matrix(table.search().select(["id", "vector"]).limit(rows).to_arrow())
    exact, truth = timed(lambda query: np.argsort(-(matrix @ query))[:K].tolist(), queries[:50])
    truth = [np.argsort(-(matrix @ query))[:K].tolist() for query in queries]
    lines.append(f"| all {rows:,}, numpy, everything compared | {exact:.1f} | 1 |")
    unindexed, _ = timed(
        lambda query: table.search(query).distance_type("cosine").select(["id", "_distance"]).bypass_vector_index()
        .limit(K).to_arrow(), queries[:12])  # fmt: skip
    lines.append(f"| all {rows:,}, LanceDB, everything compared | {unindexed:.1f} | 1 |")
    lines.append(f"| all {rows:,}, the index as it is built | {spent:.1f} | {share(found, truth):.3f} |")
    for condition, (milliseconds, answers) in filtered.items():
        inside = np.arange(rows) % 2 == 0 if condition == half else np.arange(rows) % 100 == 7
        places = np.flatnonzero(inside)
        true = [places[np.argsort(-(matrix[places] @ query))[:K]].tolist() for query in queries[:100]]
        lines.append(f"| the {len(places):,} where `{condition}` | {milliseconds:.1f} | {share(answers, true):.3f} |")
    for count in (5_000, 20_000, 50_000):
        ours.matrix, ours.ids, ours.whole = matrix[:count], np.arange(count), True
        milliseconds, _ = timed(lambda query: ours.nearest(query, K), queries)
        lines.append(f"| {count:,}, in memory, everything compared | {milliseconds:.1f} | 1 |")
    built = json.loads(ours_facts(where))
    return f"""# Search in many vectors

{rows:,} vectors of {DIM} numbers (fp16 on disk), {K} nearest, median of {QUERIES} queries one after another (fewer for
the slow rows). Recall is the share of the true {K} that is found.

| what is searched | ms for each query | recall |
|---|---|---|
{chr(10).join(lines)}

Building the vector index took {built["seconds"]:.0f} s; the recall it measured of itself, on rows of the table as
queries, is {built["recall"]:.3f}. While {QUERIES} queries used the index, the memory of the process grew by
{(memory - begins) / 1024:,.0f} MB to {memory / 1024:,.0f} MB.

The vectors are synthetic: {CENTRES:,} centres from a normal distribution, each vector a centre plus normal noise of
{NOISE} of its size, scaled to length 1 (seed 0). Such vectors are harder for a graph than those of real pictures, which
fill fewer dimensions.

Machine: {machine()}, LanceDB {lancedb.__version__}.

Repeat: `python benchmarks/search.py make DIR --rows {rows}`, then `build DIR`, then `measure DIR --report FILE`.
"""


def ours_facts(where: str) -> bytes:
    from mirada.search.table import Facts

    return Facts(location(where)).get("vector index") or b"{}"


def share(found: list[list[int]], truth: list[list[int]]) -> float:
    return sum(len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)) / (K * len(truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["make", "build", "measure"])
    parser.add_argument("where")
    parser.add_argument("--rows", type=int, default=200_000, help="of what is made")
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    if options.verb == "make":
        make(location(options.where), options.rows)
    elif options.verb == "build":
        print(build_index(location(options.where)))
    else:
        options.report.write_text(measure(options.where), encoding="utf-8")
        print(options.report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
