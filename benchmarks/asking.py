"""How long a person waits for an answer: the whole command, cold and warm, and the search alone.

    python benchmarks/asking.py PHOTOGRAPHS mirada:emoji openai-sized=FOLDER

Each model, NAME=REF or REF, indexes the photographs of a folder; then `mirada search` is asked for words, each time
others, in a process of its own: without a resident process, with one that has to be started, and with one that is
there. Beside it the search itself, in one process, words encoded and compared. Writes docs/numbers/asking.md. Use a
machine that does nothing else.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from named import named

import mirada
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "asking.md"
KINDS = ("old", "small", "red", "wooden", "broken", "happy", "blue")
THINGS = ("dog", "house", "boat", "tree", "chair", "bridge", "bird", "car", "flower", "clock", "hat", "horse")
QUERIES = [f"a {kind} {thing}" for kind in KINDS for thing in THINGS]


def waited(index: Path, query: str, resident: str, runtime: Path) -> float:
    """Milliseconds of the command, from its start to its end."""
    command = [sys.executable, "-m", "mirada", "search", query, "--index", str(index), "--all"]
    environment = os.environ | {"MIRADA_RESIDENT": resident, "MIRADA_RUN": str(runtime)}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip()
    return 1000 * (time.perf_counter() - began)


def cell(times: list[float]) -> str:
    return f"{statistics.median(times):,.0f} ({min(times):,.0f} to {max(times):,.0f})"


def row(name: str, index: Path, scratch: Path) -> str:
    queries = iter(QUERIES)
    cold = [waited(index, next(queries), "0", scratch) for _ in range(3)]
    starting = [waited(index, next(queries), "1", scratch)]
    warm = [waited(index, next(queries), "1", scratch) for _ in range(20)]
    (resident,) = scratch.glob("*.pid")
    os.kill(int(resident.read_text()), signal.SIGTERM)
    opened = mirada.Index(str(index))
    opened.search(next(queries))
    alone = []
    for query in queries:
        began = time.perf_counter()
        opened.search(query)
        alone.append(1000 * (time.perf_counter() - began))
    return f"| {name} | {cell(cold)} | {starting[0]:,.0f} | {cell(warm)} | {cell(alone)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    rows, names = [], []
    for model in options.models:
        name, ref = named(model)
        names.append(ref if name == ref else f"'{name}=FOLDER'")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            index, scratch = Path(folder) / "index", Path(folder) / "run"
            scratch.mkdir(mode=0o700)
            built, _ = mirada.Index.update(str(options.photographs), str(index), model=ref)
            count = len(built)
            rows.append(row(name, index, scratch))
            print(rows[-1], file=sys.stderr, flush=True)
    REPORT.write_text(
        f"""# Waiting for an answer

Words are asked for in an index of {count:,} photographs, never the same twice. Milliseconds: the median, and the range.

| model | `mirada search`, no resident process | the first, which starts it | `mirada search`, it is there | \
the search alone |
|---|---|---|---|---|
{chr(10).join(rows)}

The search alone encodes the words and compares them with all pictures, in one process that has model and index in
memory, as the resident process and `mirada serve` do.

Machine: {machine()}.

Repeat: `python benchmarks/asking.py PHOTOGRAPHS {" ".join(names)}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
