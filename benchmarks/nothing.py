"""When nothing matches: how many nonsense queries are answered, and how many real ones lose their hit.

    python benchmarks/nothing.py EMOJI_DATA/en mirada:emoji

Drawings with names, as `emoji.py prepare` writes them, are indexed by the model, and asked for by 400 nonsense queries
and by their names. A name counts whose drawing is among the first five when everything is shown; it is kept if it still
is among the answers. Writes docs/numbers/nothing.md.
"""

import argparse
import string
import tempfile
from pathlib import Path

import numpy as np

import mirada
from mirada.data.sources import open_data
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "nothing.md"
KINDS = ("letters", "syllables", "keys beside each other", "characters")


def nonsense(random: np.random.Generator, kind: str) -> str:
    """One query; nothing of what `mirada.search.calibrate` invents is used."""

    def some(letters: str, low: int, high: int) -> str:
        return "".join(random.choice(list(letters), int(random.integers(low, high))))

    if kind == "letters":
        return " ".join(some(string.ascii_lowercase, 3, 10) for _ in range(int(random.integers(1, 4))))
    if kind == "syllables":
        return " ".join(
            "".join(random.choice(list("bcdfghklmnprstvz")) + random.choice(list("aeiou"))
                    for _ in range(int(random.integers(2, 5))))
            for _ in range(int(random.integers(1, 4)))
        )  # fmt: skip
    if kind == "keys beside each other":
        return some("asdfghjklqwertyuiop", 5, 12)
    return some(string.ascii_letters + string.digits + "#%&?!", 5, 14)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("ref")
    parser.add_argument("--each", type=int, default=100, help="nonsense queries of each kind")
    options = parser.parse_args()
    source = open_data(options.data).splits["test"]
    assert source.captions is not None
    names = {source.path(row): captions[0] for row, captions in enumerate(source.captions) if captions}
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        index, _ = mirada.Index.update(str(options.data), folder, model=options.ref)
        answered: dict[str, list[str]] = {}
        for kind in KINDS:
            queries = [nonsense(random, kind) for _ in range(options.each)]
            answered[kind] = [query for query in queries if index.search(f'"{query}"')]
        found = kept = 0
        for path, name in names.items():
            if path in {hit.path for hit in index.search(f'"{name}"', k=5, everything=True)}:
                found += 1
                kept += path in {hit.path for hit in index.search(f'"{name}"', k=5)}
    rows = [f"| {kind} | {options.each} | {len(some)} | {', '.join(some[:4])} |" for kind, some in answered.items()]
    total = sum(map(len, answered.values()))
    REPORT.write_text(
        f"""# When nothing matches

`{options.ref}`, an index of {len(names):,} drawings by OpenMoji.

| nonsense of | queries | answered | for example |
|---|---|---|---|
{chr(10).join(rows)}
| all | {options.each * len(KINDS)} | {total} ({total / options.each / len(KINDS):.1%}) | |

Of {len(names):,} names {found:,} have their drawing among the first five when everything is shown; {kept:,} of these
keep it ({kept / found:.1%}).

Machine: {machine()}; seed 1.

Repeat: `python benchmarks/nothing.py {"/".join(["EMOJI_DATA", options.data.name])} {options.ref}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
