"""How fast photographs become searchable, beside rclip and sentence-transformers, cold start included.

    python benchmarks/indexing.py photographs DIR --table PHOTOGRAPHS/all.parquet    # ten minutes, 1.5 GB
    python benchmarks/indexing.py measure DIR --rclip RCLIP --sentence-transformers PYTHON

`photographs` enlarges real pictures to 12 megapixels, and makes the same ones 640 pixels wide. What is enlarged has
little fine detail, and a JPEG of it is faster to read than a camera's; `--grain 6` adds noise of so many grey levels,
as a sensor does, and makes files as large as a camera's.

`measure` runs whole commands, each in a process of its own, one after another, on the same photographs and with the
same random weights of the network that rclip comes with, CLIP ViT-B/32 at 256 pixels. Before a run the photographs are
dropped from the system's memory where it lets us (Linux); libraries and weights are in it for all, as each tool first
indexes four photographs that do not count. RCLIP is the `rclip` command; PYTHON belongs to an environment with
sentence-transformers, torchvision and onnx. Writes docs/numbers/indexing.md. Use a machine that does nothing else.
"""

import argparse
import gzip
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import lancedb
import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps

import mirada
from mirada.checkpoints.vocabularies import CLIP_MARKERS, from_merges
from mirada.search.table import location, open_table, rows_of
from mirada.search.vectors import as_matrix
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "indexing.md"
PEERS = Path(__file__).parent / "indexing_peers.py"
SIZES = {"large": (4000, 3000), "small": (640, 480)}
NAMES = {"large": "12 megapixels, 4000 x 3000", "small": "640 x 480"}
TOWERS = "ViT-B-32-256-datacomp_s34b_b86k"  # where rclip looks for its network
WARMING = 4
HEADER = "| | images/s | s | processor's s | MB at most |\n|---|---|---|---|---|"

Vectors = dict[str, np.ndarray]  # name of a file -> its vector


class Run(NamedTuple):
    seconds: float
    processor: float  # seconds, of all cores
    megabytes: float
    vectors: Vectors


def make_photographs(folder: Path, table: Path, count: int, grain: float) -> None:
    """The same pictures in both sizes, as JPEG of quality 90, and a note of how they were made."""
    encoded = pq.read_table(table, columns=["image"])["image"].slice(0, count).to_pylist()
    draw, written = np.random.default_rng(0), dict.fromkeys(SIZES, 0)
    for name in SIZES:
        (folder / name).mkdir(parents=True, exist_ok=False)
    for number, row in enumerate(encoded):
        image = Image.open(BytesIO(row["bytes"] if isinstance(row, dict) else row)).convert("RGB")
        for name, size in SIZES.items():
            photograph = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
            if grain:
                noise = draw.standard_normal((size[1], size[0], 1), np.float32) * grain
                photograph = Image.fromarray((np.asarray(photograph) + noise).clip(0, 255).astype(np.uint8))
            file = folder / name / f"{number:04}.jpg"
            photograph.save(file, quality=90)
            written[name] += file.stat().st_size
    facts = {"table": table.name, "count": len(encoded), "grain": grain, "bytes": written}
    (folder / "photographs.json").write_text(json.dumps(facts), encoding="utf-8")


def make_model(folder: Path, python: str) -> None:
    """`folder/clip` as transformers saves it, which Mirada and sentence-transformers read, and `folder/rclip`."""
    clip, towers, words = folder / "clip", folder / "rclip" / TOWERS, folder / "rclip" / "tokenizer"
    for part in (clip, towers, words):
        part.mkdir(parents=True, exist_ok=True)
    start, end = CLIP_MARKERS
    contract = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": start, "eos_token": end,
                "unk_token": end, "pad_token": end}  # fmt: skip
    (clip / "tokenizer.json").write_text(from_merges(), encoding="utf-8")
    (clip / "tokenizer_config.json").write_text(json.dumps(contract), encoding="utf-8")
    merges = gzip.decompress((Path(mirada.__file__).parent / "vocabularies" / "clip.txt.gz").read_bytes())
    (words / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(b"merges\n" + merges))
    subprocess.run([python, "-W", "ignore", str(PEERS), "model", str(clip), str(towers)], env=offline(), check=True)


def offline(**more: str) -> dict[str, str]:
    """The environment of a peer."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1", **more}


def watched(command: list[str], where: Path, env: dict[str, str]) -> tuple[float, float, float]:
    """Seconds of the whole command, those of the processor, and megabytes at its peak."""
    done = subprocess.run([sys.executable, "-S", str(PEERS), "watch", *command], cwd=where, env=env,
                          capture_output=True, text=True, check=True)  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    if found["status"]:
        sys.exit(f"{' '.join(command)} ended with {found['status']}:\n{done.stderr[-2000:]}")
    return found["seconds"], found["processor"], found["megabytes"]


def with_mirada(photographs: Path, models: Path, scratch: Path) -> Run:
    where = scratch / "index"
    command = [sys.executable, "-m", "mirada", "index", str(photographs), "--index", str(where)]
    spent = watched([*command, "--model", str(models / "clip")], scratch, dict(os.environ))
    rows = rows_of(open_table(location(where))[0], ["path", "vector"])
    names = [Path(path).name for path in rows["path"].to_pylist()]
    return Run(*spent, dict(zip(names, as_matrix(rows), strict=True)))


def with_rclip(photographs: Path, models: Path, scratch: Path, rclip: str) -> Run:
    for part in (models / "rclip").iterdir():
        (scratch / part.name).symlink_to(part)
    query = f"./{min(path.name for path in photographs.iterdir())}"  # it always searches too; so it need not read words
    spent = watched([rclip, "--top", "1", query], photographs, offline(RCLIP_DATADIR=str(scratch)))
    with sqlite3.connect(scratch / "db.sqlite3") as database:
        rows = database.execute("SELECT filepath, vector FROM images WHERE deleted IS NULL").fetchall()
    return Run(*spent, {Path(path).name: np.frombuffer(vector, np.float32) for path, vector in rows})


def with_sentence_transformers(photographs: Path, models: Path, scratch: Path, python: str) -> Run:
    out = scratch / "vectors.npy"
    command = [python, str(PEERS), "encode", str(models / "clip"), str(photographs), str(out)]
    spent = watched(command, scratch, offline())
    return Run(*spent, dict(zip(sorted(path.name for path in photographs.iterdir()), np.load(out), strict=True)))


def drop_from_memory(folder: Path) -> None:
    if not hasattr(os, "posix_fadvise"):
        return
    os.sync()  # what is not written yet is not dropped
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(tool: Callable[..., Run], photographs: Path, *rest: Any) -> Run:
    """One run, of which every photograph must have come out."""
    drop_from_memory(photographs)
    with tempfile.TemporaryDirectory() as scratch:
        found = tool(photographs, rest[0], Path(scratch), *rest[1:])
    there = {path.name for path in photographs.iterdir()}
    if found.vectors.keys() != there:
        sys.exit(f"{tool.__name__} indexed {len(found.vectors)} of {len(there)} photographs in {photographs}.")
    return found


def likeness(one: Vectors, other: Vectors) -> float:
    """Median cosine of what sets a photograph apart from the mean, in two tools."""
    first, second = (np.stack([vectors[name] for name in sorted(one)]).astype(np.float32) for vectors in (one, other))
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
    first, second = (rows - rows.mean(0) for rows in (first, second))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.median((first * second).sum(1) / lengths))


def measure(folder: Path, rclip: str, python: str, repeats: int) -> str:
    facts = json.loads((folder / "photographs.json").read_text(encoding="utf-8"))
    models = folder / "models"
    if not (models / "rclip" / TOWERS / "textual.onnx").is_file():
        make_model(models, python)
    said = subprocess.run(
        [python, str(PEERS), "versions"], env=offline(), stdout=subprocess.PIPE, text=True, check=True
    )
    theirs = said.stdout.strip()
    version = subprocess.run([rclip, "--version"], env=offline(), stdout=subprocess.PIPE, text=True, check=True)
    tools: dict[str, tuple[Any, ...]] = {
        "Mirada": (with_mirada, models), version.stdout.strip(): (with_rclip, models, rclip),
        theirs.partition(",")[0]: (with_sentence_transformers, models, python),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as few:
        for path in sorted((folder / "small").iterdir())[:WARMING]:
            shutil.copy(path, few)
        for tool, *rest in tools.values():
            run(tool, Path(few), *rest)
    parts, alike = [], []
    for size in SIZES:
        runs: dict[str, list[Run]] = {name: [] for name in tools}
        for _ in range(repeats):
            for name, (tool, *rest) in tools.items():
                runs[name].append(run(tool, folder / size, *rest))
                print(size, name, *runs[name][-1][:3], file=sys.stderr, flush=True)
        parts.append(section(size, runs, facts))
        mine, *others = (found[-1].vectors for found in runs.values())
        alike.append(f"{min(likeness(mine, other) for other in others):.2f}")
    return page(facts, "\n\n".join(parts), alike, theirs, repeats)


def section(size: str, runs: dict[str, list[Run]], facts: dict[str, Any]) -> str:
    count, rows, speed = facts["count"], [], {}
    for name, found in runs.items():
        seconds = [one.seconds for one in found]
        speed[name] = count / statistics.median(seconds)
        between = f" ({count / max(seconds):.1f} to {count / min(seconds):.1f})" if len(found) > 1 else ""
        busy = statistics.median(one.processor for one in found)
        rows.append(f"| {name} | {speed[name]:.1f}{between} | {statistics.median(seconds):.1f} | {busy:.1f} | "
                    f"{max(one.megabytes for one in found):,.0f} |")  # fmt: skip
    mine, *others = speed.values()
    weight = facts["bytes"][size] / count / 1e6
    return f"""## {NAMES[size]}

{HEADER}
{chr(10).join(rows)}

Mirada is {mine / max(others):.1f} times as fast as the faster of the two. A file has {weight:.2f} MB on average."""


def page(facts: dict[str, Any], tables: str, alike: list[str], theirs: str, repeats: int) -> str:
    grain = f", with noise of {facts['grain']:g} grey levels" if facts["grain"] else ", without noise"
    option = f" --grain {facts['grain']:g}" if facts["grain"] else ""
    dropped = ("Photographs are read from the disk, " if hasattr(os, "posix_fadvise") else
               "What the system holds in memory of photographs is left there, ")  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"""# Indexing photographs

{facts["count"]:,} photographs, from the start of a command to its end: the interpreter, libraries, model, pictures, and
what is stored. CLIP ViT-B/32 at 256 pixels, the network that rclip comes with, with the same random weights in all
three; each tool at its defaults, one after another. Repeats: {repeats}, by turns (median, slowest to fastest; memory:
the most).

{tables}

## What each does

- **Mirada**: `mirada index PHOTOGRAPHS --index INDEX --model FOLDER`. It reads a large JPEG at 1/2, 1/4 or 1/8 of its
  size, whichever still exceeds what the network sees and a thumbnail needs. It also reads EXIF, stores a thumbnail and
  a perceptual hash of each photograph, hashes the whole file, and encodes some hundred words by which it will know
  whether a query matches anything. The others do none of that. It computes in bfloat16 where that is faster, as on this
  machine; the others in float32, as they do by default.
- **rclip**: `rclip --top 1 ./PHOTOGRAPH` in the folder. It indexes and then searches, here for a picture, so that it
  need not load its text tower. It decodes all pixels, in threads, computes with ONNX Runtime, and stores vectors and a
  hash of each file's first megabyte in SQLite. Its towers are exported from the same weights as its own are from
  theirs, by TorchScript.
- **sentence-transformers**: `SentenceTransformer(FOLDER).encode(PATHS)`, and the vectors into a file of NumPy's. It
  decodes all pixels, and stores nothing else.

The vectors agree: of what sets a photograph's vector apart from the mean, the median cosine between Mirada and the peer
that is less like it is {" and ".join(alike)} (large, small); each reduces pictures in its own way. Each run was checked
to have a vector of every photograph.

Photographs: those of {facts["table"]}, cropped to 4:3 and scaled with Lanczos{grain}, JPEG of quality 90. What is
enlarged has less fine detail than what a camera sees, unless there is noise, and its files are smaller and faster to
decode. {dropped}libraries and weights are in memory.

Machine: {machine()}, {cores} cores for the tools, Pillow {Image.__version__}, LanceDB {lancedb.__version__}; {theirs}.

Repeat, with `RCLIP` and `PYTHON` from environments of their own (`pip install rclip`; `pip install
'sentence-transformers[image]' onnx`):

```
python benchmarks/indexing.py photographs DIR --table PHOTOGRAPHS/{facts["table"]} --count {facts["count"]}{option}
python benchmarks/indexing.py measure DIR --rclip RCLIP --sentence-transformers PYTHON --repeats {repeats}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("photographs")
    making.add_argument("folder", type=Path)
    making.add_argument("--table", type=Path, required=True, help="encoded pictures in its column `image`")
    making.add_argument("--count", type=int, default=1000)
    making.add_argument("--grain", type=float, default=0.0, help="standard deviation of noise, in grey levels")
    measuring = verbs.add_parser("measure")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--rclip", required=True, help="the command")
    measuring.add_argument("--sentence-transformers", required=True, help="a Python that has it")
    measuring.add_argument("--repeats", type=int, default=3)
    measuring.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    if options.verb == "photographs":
        make_photographs(options.folder, options.table, options.count, options.grain)
        return
    found = measure(options.folder.resolve(), options.rclip, options.sentence_transformers, options.repeats)
    options.report.write_text(found, encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
