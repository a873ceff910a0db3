"""One-vs-rest anomaly detection on CIFAR-10, and the memory that a streamed coreset takes.

    python benchmarks/anomalies.py cifar CIFAR10 pixels
    python benchmarks/anomalies.py cifar CIFAR10 "untrained=vit-nano/4(pooling='average', image_size=32)"
    python benchmarks/anomalies.py cifar CIFAR10 "SimCLR, three minutes=RUN"
    python benchmarks/anomalies.py memory
    python benchmarks/anomalies.py images CIFAR10 REF
    python benchmarks/anomalies.py report

CIFAR10 is the folder with train.parquet and test.parquet. Each call adds rows to docs/numbers/anomalies.jsonl, and
those of the same name replace older ones; `report` writes docs/numbers/anomalies.md of them.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from named import named

from mirada.anomalies import mahalanobis
from mirada.anomalies.coreset import Coreset
from mirada.anomalies.neighbours import neighbour_scores
from mirada.anomalies.patch_core import memory_size
from mirada.anomalies.probe import measure_anomalies
from mirada.anomalies.scores import auroc
from mirada.data.decode import decode
from mirada.data.sources import Source, open_data
from mirada.data.splits import Subset
from mirada.loading import load
from mirada.train.folder import machine

NUMBERS = Path(__file__).parent.parent / "docs" / "numbers"
ROWS, REPORT = NUMBERS / "anomalies.jsonl", NUMBERS / "anomalies.md"
CHEAP, DEAR = ("knn", "mahalanobis"), ("patches", "mean-shift")
FEW = 3  # classes that the dear methods are measured on
IMAGES, GRID, WIDTH = 10_000, 14, 384


def add(row: dict[str, Any], *names: str) -> None:
    """Put the row into the file, in the place of the one that agrees with it in these values."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    rows = [one for one in rows if any(one.get(name) != row.get(name) for name in names)] + [row]
    ROWS.write_text("".join(json.dumps(one) + "\n" for one in rows))
    print(row, file=sys.stderr, flush=True)


def raw_pixels(source: Source) -> torch.Tensor:
    """(n, 3072), in 0..1."""
    pixels = [np.asarray(decode(source.read(index))) for index in range(len(source))]
    return torch.from_numpy(np.stack(pixels)).flatten(1).float() / 255


def cifar(options: argparse.Namespace) -> None:
    splits = open_data(options.data).splits
    train, test = splits["train"], splits["test"]
    assert train.classes is not None
    assert train.labels is not None
    assert test.labels is not None
    name, ref = named(options.model)
    pixels = options.model == "pixels"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = None if pixels else load(ref)
    asked = raw_pixels(test) if pixels else None
    for method in options.methods or (CHEAP if pixels else CHEAP + DEAR):
        for number, label in enumerate(train.classes[: FEW if method in DEAR else None]):
            began = time.monotonic()
            if model is None:
                assert asked is not None
                known = raw_pixels(Subset(train, np.flatnonzero(train.labels == number)))
                if method == "knn":
                    scores = neighbour_scores(known, asked)
                else:
                    scores = mahalanobis.mahalanobis(mahalanobis.fit(known), asked)
                area = auroc(scores.numpy(), test.labels != number)
            else:
                found = measure_anomalies(model, train, test, number, method, seed=options.seed, batch=250)
                area = found.metrics["auroc"]
            row = {"model": name, "method": method, "class": label, "auroc": area,
                   "seconds": time.monotonic() - began}  # fmt: skip
            add(row, "model", "method", "class")


def peak() -> float:
    """The most memory that this process has had so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def memory(options: argparse.Namespace) -> None:
    """A stream of patches as many and as wide as those of a ViT-S/16 at 224 pixels: drawn, near a few directions."""
    random = torch.Generator().manual_seed(options.seed)
    directions = 3 * torch.randn(64, WIDTH, generator=random)
    patches = GRID * GRID
    before, began = peak(), time.monotonic()
    coreset = Coreset(memory_size(IMAGES * patches), WIDTH)
    for image in range(IMAGES):
        shares = torch.randn(patches, 64, generator=random).softmax(1)
        coreset.add(shares @ directions + 0.3 * torch.randn(patches, WIDTH, generator=random), image)
        if image % 1000 == 999:
            print(f"{image + 1:,} images, {coreset.held:,} rows held, {peak():.2f} GB", file=sys.stderr, flush=True)
    rows, _ = coreset.finish()
    row = {"memory": "drawn patches", "images": IMAGES, "rows": len(rows), "most_held": coreset.most_held,
           "before": before, "peak": peak(), "seconds": time.monotonic() - began,
           "whole": IMAGES * patches * WIDTH * 4 / 1e9}  # fmt: skip
    add(row, "memory")


def images(options: argparse.Namespace) -> None:
    """The command itself, in a process of its own: normal are 10,000 training images, asked about are 100 others."""
    splits = open_data(options.data).splits
    with tempfile.TemporaryDirectory() as folder:
        normal, data = Path(folder) / "normal", Path(folder) / "data"
        for where, split, count in ((normal, "train", IMAGES), (data, "test", 100)):
            where.mkdir()
            for index in range(count):
                (where / f"{index:05}.jpg").write_bytes(splits[split].read(index))
        script = (
            "import resource, sys\nfrom mirada.cli.main import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        )
        script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        began = time.monotonic()
        command = [sys.executable, "-c", script, "anomalies", str(data), "--normal", str(normal), "--model",
                   options.model, "--method", "patches", "--batch", "250", "--json"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert len(json.loads(done.stdout)) == 100
    used = int(done.stderr.split()[-1]) * 1024 / 1e9
    row = {"memory": "the command", "images": IMAGES, "peak": used, "seconds": time.monotonic() - began}
    add(row, "memory")


def memory_row(row: dict[str, Any]) -> str:
    """Of the table of memory."""
    if row["memory"] == "the command":
        what = "`mirada anomalies --method patches`, 32 pixels, ViT-nano/4 (8×8, 128 wide), CIFAR-10"
        return f"| {what} | {row['images']:,} | {row['images'] * 64:,} | | | {row['peak']:.2f} GB, all | |"
    what = f"patches as of a ViT-S/16 at 224 pixels ({GRID}×{GRID}, {WIDTH} wide), drawn"
    peak = f"{row['peak']:.2f} GB, of which {row['before']:.2f} GB PyTorch"
    counts = f"{row['images']:,} | {row['images'] * GRID * GRID:,} | {row['rows']:,} | {row['most_held']:,}"
    return f"| {what} | {counts} | {peak} | {row['whole']:.1f} GB |"


def report(_: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    scores = [row for row in rows if "auroc" in row]
    classes = list(dict.fromkeys(row["class"] for row in scores))
    lines = []
    for model, method in dict.fromkeys((row["model"], row["method"]) for row in scores):
        own = {row["class"]: row for row in scores if (row["model"], row["method"]) == (model, method)}
        cells = [f"{100 * own[label]['auroc']:.1f}" if label in own else "" for label in classes[:FEW]]
        for some in (classes[:FEW], classes):
            areas = [own[label]["auroc"] for label in some if label in own]
            cells.append(f"{100 * mean(areas):.1f}" if len(areas) == len(some) else "")
        cells += [f"{mean(row['seconds'] for row in own.values()):.0f}"]
        lines.append(f"| {model} | {method} | {' | '.join(cells)} |")
    dear = sorted({row["method"] for row in scores} & set(DEAR))
    few_only = f" Of {' and '.join(dear)}, {FEW} classes are measured." if dear else ""
    measured = [memory_row(row) for row in rows if "memory" in row]
    REPORT.write_text(
        f"""# Anomalies

## CIFAR-10, one class against the rest

AUROC in percent. Normal are the 5,000 training images of one class; measured are all 10,000 test images (CIFAR-10, JPEG
copy), 1,000 of them normal. The last column is the mean time for a class in seconds, features included where they were
not known yet, on a machine with other work to do.{few_only}

| model | method | {" | ".join(classes[:FEW])} | mean of {FEW} | mean of {len(classes)} | s |
|---|---|{"---|" * (FEW + 3)}
{chr(10).join(lines)}

The published 98.6 of mean-shifted contrast (arXiv:2106.03844) is that of a ResNet-152 trained on ImageNet, which nobody
gets from minutes of training on 32 pixels.

## Memory

| what | normal images | patches | rows kept | most rows held | peak memory | without a coreset |
|---|---|---|---|---|---|---|
{chr(10).join(measured)}

Machine: {machine()}, shared; seed 0.

Repeat: see `benchmarks/anomalies.py`.
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("cifar", help="AUROC of a model, NAME=REF, or of pixels")
    verb.add_argument("data", type=Path)
    verb.add_argument("model")
    verb.add_argument("--methods", nargs="*", choices=CHEAP + DEAR)
    verb.set_defaults(run=cifar)
    verb = verbs.add_parser("memory", help="of the coreset alone")
    verb.set_defaults(run=memory)
    verb = verbs.add_parser("images", help="of the whole command")
    verb.add_argument("data", type=Path)
    verb.add_argument("model")
    verb.set_defaults(run=images)
    verb = verbs.add_parser("report")
    verb.set_defaults(run=report)
    parser.set_defaults(seed=0)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
