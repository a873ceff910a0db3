"""What is said of vision transformers, measured small enough for two CPU cores: docs/claims.md.

    python benchmarks/claims.py train DATA --name "CIFAR-10 (JPEG copy)" --runs runs/claims
    python benchmarks/claims.py distance DATA --name "CIFAR-10 (JPEG copy)" --runs runs/claims
    python benchmarks/claims.py objects EMOJI/all.parquet PHOTOGRAPHS/all.parquet --runs runs/claims
    python benchmarks/claims.py tasks cat.jpg
    python benchmarks/claims.py page

`train` gives networks of about the same size the same number of updates on 2, 10, 30 and 100% of the training split,
each by the real command in a process of its own; `distance` looks inside what was trained; `objects` trains one network
with and without labels on drawings pasted on photographs, and asks both where the drawing is; `tasks` draws what four
pretext tasks ask. Each appends lines to docs/numbers/claims.jsonl, from which `page` writes the figures and the page.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mirada.data.decode import decode
from mirada.data.sources import open_data
from mirada.evaluate.object_discovery import discover
from mirada.features import Backbone
from mirada.inspect import attention_distances, receptive_field
from mirada.inspect.look import even_distance
from mirada.loading import load
from mirada.train.folder import machine

RECORDS = Path(__file__).parent.parent / "docs" / "numbers" / "claims.jsonl"
SIDE = 64
VIT = "vit-pico/8(dim={dim}, num_heads=3, pooling='average')"
KINDS = {  # about 0.45 million parameters each, but for the narrow and the wide transformer
    "ViT": VIT.format(dim=96),
    "CoAtNet": "coatnet-0(widths=(16, 24, 48, 96, 128), depths=(1, 2, 2, 1))",
    "ResNet": "resnet-18(depths=(1, 1, 2, 2), widths=(24, 48, 64, 80), stem_width=24)",
    "narrow ViT": VIT.format(dim=48),
    "wide ViT": VIT.format(dim=192),
}
CLASS_TOKEN = "vit-pico/8(dim=96, num_heads=3)"
WITHOUT_LABELS = "dino(small=0, prototypes=256)"


def record(row: dict[str, Any]) -> None:
    with RECORDS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | {"machine": machine()}) + "\n")
    print(json.dumps(row), flush=True)


def part_of(data: Path, share: float, seed: int, out: Path, tested: int) -> int:
    """A folder with that share of the training split, at random, and `tested` images to measure on, always the same;
    returns how many images there are to train on."""
    train = pq.read_table(data / "train.parquet", columns=["image", "label", "label_name"])
    test = pq.read_table(next(file for name in ("test", "val") if (file := data / f"{name}.parquet").exists()),
                         columns=["image", "label", "label_name"])  # fmt: skip
    chosen = np.random.default_rng(seed).permutation(len(train))[: round(share * len(train))]
    asked = np.random.default_rng(0).permutation(len(test))[:tested]
    out.mkdir()
    pq.write_table(train.take(pa.array(np.sort(chosen))), out / "train.parquet")
    pq.write_table(test.take(pa.array(np.sort(asked))), out / "test.parquet")
    return len(chosen)


def command(data: Path, out: Path, *, seed: int, model: str, steps: int, batch: int, **settings: Any) -> dict[str, Any]:
    """The document that `mirada train --json` prints."""
    settings |= {"model": model, "steps": steps, "batch": batch, "validate": 0}
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "claim.yaml"
        recipe.write_text(yaml.safe_dump(settings))
        done = subprocess.run(
            [sys.executable, "-m", "mirada", "train", str(data), "--recipe", str(recipe), "--seed", str(seed), "--out",
             str(out), "--json"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def parameters(backbone: Backbone) -> int:
    return sum(parameter.numel() for parameter in backbone.parameters())


def train(options: argparse.Namespace) -> None:
    for seed in options.seeds:
        for share in options.shares:
            for kind in options.kinds:
                out = options.runs / f"{options.data.name}-{kind.replace(' ', '-')}-{share:g}-{seed}"
                with tempfile.TemporaryDirectory() as folder:
                    part = Path(folder) / "part"
                    images = part_of(options.data, share, seed, part, options.tested)
                    found = command(part, out, seed=seed, model=KINDS[kind], steps=options.steps, batch=options.batch,
                                    image_size=SIDE, resize="squash", canvas=options.canvas)  # fmt: skip
                record({
                    "claim": "bias", "data": options.name, "kind": kind, "model": KINDS[kind],
                    "parameters": parameters(load(out).backbone), "share": share, "images": images, "seed": seed,
                    "steps": options.steps, "batch": options.batch, "train_seconds": round(found["train_seconds"]),
                    "accuracy": round(100 * found["metrics"]["test/accuracy"], 2), "measured": found["measured"],
                })  # fmt: skip


def distance(options: argparse.Namespace) -> None:
    """Attention distance of every head, and the effective receptive field, of each network that `train` left."""
    name = next(name for name in ("test", "val") if (options.data / f"{name}.parquet").exists())
    source = open_data(str(options.data)).splits[name]
    pictures = [decode(source.read(index)) for index in range(options.count)]
    for out in sorted(options.runs.glob(f"{options.data.name}-*")):
        kind, share, seed = out.name.removeprefix(f"{options.data.name}-").rsplit("-", 2)
        trained, untrained = load(out), load(load(out).architecture)
        for model, state in ((trained, "trained"), (untrained, "untrained")):
            images = trained.prepare(pictures)
            fields = receptive_field(model.backbone, images)
            row = {
                "claim": "distance", "data": options.name, "kind": kind.replace("-", " "), "share": float(share),
                "seed": int(seed), "state": state, "images": len(images),
                "fields": [[field.name, round(field.distance, 2)] for field in fields],
            }  # fmt: skip
            if any(field.name.startswith("attention") for field in fields):
                grids = [field.grid for field in fields if field.name.startswith("attention")]
                row["heads"] = [[round(value, 2) for value in layer.mean(0).tolist()]
                                for layer in attention_distances(model.backbone, images)]  # fmt: skip
                row["even"] = [round(even_distance(grid, SIDE / grid[0]), 2) for grid in grids]
            record(row)


def composites(emoji: Path, photographs: Path, out: Path, seed: int, count: int, tested: int) -> None:
    """Drawings at random places and sizes on photographs, with their group and their own transparency as mask: some to
    train on, and others, of drawings that are not among them, to measure on."""
    from objects import composite, drawn

    random = np.random.default_rng(seed)
    table = pq.read_table(emoji, columns=["image", "category", "name", "vendor"]).to_pylist()
    backgrounds = pq.read_table(photographs, columns=["image"])["image"].to_pylist()
    names = sorted({row["name"] for row in table})
    held_out = set(random.choice(names, len(names) // 5, replace=False).tolist())
    groups = sorted({row["category"] for row in table} - {"Component"})
    out.mkdir()
    for split, wanted in (("train", count), ("test", tested)):
        stamps = [(drawing, row["category"]) for row in table
                  if (row["name"] in held_out) == (split == "test") and row["category"] in groups
                  and (drawing := drawn(row["image"])) is not None]  # fmt: skip
        half = backgrounds[: len(backgrounds) // 2] if split == "train" else backgrounds[len(backgrounds) // 2 :]
        rows = []
        for number in random.choice(len(stamps), wanted, replace=wanted > len(stamps)).tolist():
            drawing, group = stamps[number]
            image, mask = composite(drawing, decode(half[int(random.integers(len(half)))]), random)
            rows.append({"image": image, "mask": mask, "label": groups.index(group), "label_name": group})
        pq.write_table(pa.Table.from_pylist(rows), out / f"{split}.parquet")


def objects(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "composites"
        composites(options.emoji, options.photographs, data, 0, options.pictures, options.tested)
        source = open_data(str(data)).splits["test"]
        for seed in options.seeds:
            for name, objective, steps in (
                ("with labels", "supervised", options.steps), ("without labels", WITHOUT_LABELS, options.steps),
            ):  # fmt: skip
                out = options.runs / f"objects-{name.replace(' ', '-')}-{seed}"
                began = time.monotonic()
                command(data, out, seed=seed, model=CLASS_TOKEN, steps=steps, batch=options.batch, image_size=SIDE,
                        objective=objective)  # fmt: skip
                found = discover(load(out), source, ("attention", "token-cut"), seed=seed).metrics
                record({
                    "claim": "objects", "state": name, "objective": objective, "model": CLASS_TOKEN, "seed": seed,
                    "steps": steps, "batch": options.batch, "train_images": options.pictures,
                    "measured": len(source), "seconds": round(time.monotonic() - began),
                    "metrics": {key: round(100 * value, 2) for key, value in found.items()},
                })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, function in (("train", train), ("distance", distance)):
        verb = verbs.add_parser(name)
        verb.add_argument("data", type=Path, help="a folder with train.parquet and test.parquet or val.parquet")
        verb.add_argument("--name", required=True, help="what the data are, for the page")
        verb.add_argument("--runs", type=Path, required=True, help="where trained networks are kept")
        verb.set_defaults(run=function)
        if name == "distance":
            verb.add_argument("--count", type=int, default=64)
            continue
        verb.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
        verb.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.1, 0.3, 1.0])
        verb.add_argument("--seeds", type=int, nargs="+", default=[0])
        verb.add_argument("--steps", type=int, default=600)
        verb.add_argument("--batch", type=int, default=64)
        verb.add_argument("--tested", type=int, default=4000)
        verb.add_argument("--canvas", type=int, help="side of the pictures in memory; their own by default")
    verb = verbs.add_parser("objects")
    verb.add_argument("emoji", type=Path)
    verb.add_argument("photographs", type=Path)
    verb.add_argument("--runs", type=Path, required=True)
    verb.add_argument("--seeds", type=int, nargs="+", default=[0])
    verb.add_argument("--steps", type=int, default=400)
    verb.add_argument("--batch", type=int, default=64)
    verb.add_argument("--pictures", type=int, default=6000)
    verb.add_argument("--tested", type=int, default=300)
    verb.set_defaults(run=objects)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
