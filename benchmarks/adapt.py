"""Taking a model that knows words to pictures of another kind, and what it forgets on the way.

    python benchmarks/adapt.py EMOJI_DATA TUXPAINT/all.parquet

`mirada:emoji` learns half of Tux Paint's stamps, with captions in English and Spanish, in each of the ways that
docs/clip.md lists; measured are R@1 and R@5 of English captions among the other half, and of names among the emoji of a
vendor that it never saw, which it knew before. Runs are counted in updates, so a slow machine changes nothing.
EMOJI_DATA is what `emoji.py prepare` wrote. Writes docs/numbers/adapting.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq
from emoji import on_white

from mirada.data.sources import open_data
from mirada.evaluate.pairs import pair_retrieval
from mirada.evaluate.predict import evaluation_images
from mirada.loading import load
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "adapting.md"
REF = "mirada:emoji"
AUGMENT = "{'base': 'zoom', 'scale': [0.5, 1.0], 'flip': False}"
BLENDED = "both towers, then half the way back (WiSE-FT)"
WAYS = {
    "both towers": [],
    "image tower locked (LiT)": ["--freeze", "-1"],
    "text tower locked": ["--objective", f"clip(locked=True, augment={AUGMENT})"],
    "LoRA of rank 8": ["--lora", "8"],
}


def prepare(table: Path, out: Path) -> int:
    """Half of the stamps to learn, by their names' hash, and half to measure; returns how many are measured."""
    rows = [row for row in pq.read_table(table).to_pylist() if row["caption_en"]]
    halves: tuple[list[dict[str, object]], list[dict[str, object]]] = ([], [])
    for row in rows:
        spoken = [row["caption_en"], *([row["caption_es"]] if row["caption_es"] else [])]
        tested = crc32(row["caption_en"].encode()) % 2
        caption = {"caption": row["caption_en"]} if tested else {"captions": spoken}
        halves[tested].append({"image": on_white(row["image"])} | caption)
    out.mkdir()
    for name, half in zip(("train", "test"), halves, strict=True):
        pq.write_table(pa.Table.from_pylist(half), out / f"{name}.parquet")
    return len(halves[1])


def scores(ref: str, *tests: Path) -> list[float]:
    """R@1 and R@5 of text to image in percent, of each."""
    found: list[float] = []
    for test in tests:
        model = load(ref)
        metrics = pair_retrieval(model, evaluation_images(model, open_data(test).splits["test"])).metrics
        found += [100 * metrics[f"text_to_image/R@{most}"] for most in (1, 5)]
    return found


def mirada(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mirada", *map(str, words), "--json"], stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("emoji", type=Path)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", default="3e-4")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "stamps"
        count = prepare(options.stamps, data)
        tests = data, options.emoji / "en"
        found["nothing"] = [scores(REF, *tests)]
        for seed in options.seeds:
            for way, flags in WAYS.items():
                out = Path(folder) / f"{way}-{seed}"
                shared = ["--steps", options.steps, "--lr", options.lr, "--batch", 128, "--seed", seed]
                objective = [] if "--objective" in flags else ["--objective", f"clip(augment={AUGMENT})"]
                mirada("train", data, "--init", REF, "--out", out, *objective, *shared, *flags)
                found.setdefault(way, []).append(scores(str(out), *tests))
                print(way, seed, json.dumps(found[way][-1]), file=sys.stderr, flush=True)
                if way == "both towers":
                    blended = Path(folder) / f"blend-{seed}"
                    mirada("blend", REF, out, "--weight", 0.5, "--out", blended)
                    found.setdefault(BLENDED, []).append(scores(str(blended), *tests))
    lines = [
        f"| {way} | {' | '.join(f'{sum(column) / len(column):.1f}' for column in zip(*rows, strict=True))} |"
        for way, rows in found.items()
    ]
    REPORT.write_text(
        f"""# Adapting mirada:emoji to Tux Paint's stamps

{options.steps} updates of 128 at a learning rate of {options.lr}; {count} stamps are measured, whose captions no stamp
that was learned has. In percent, the mean of seeds {", ".join(map(str, options.seeds))}.

| what is trained | stamps R@1 | R@5 | emoji R@1 | R@5 |
|---|---|---|---|---|
{chr(10).join(lines)}

Machine: {machine()}.

Repeat: `python benchmarks/adapt.py EMOJI_DATA TUXPAINT/all.parquet --steps {options.steps} --lr {options.lr} --seeds \
{" ".join(map(str, options.seeds))}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
