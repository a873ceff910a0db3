"""The runs behind docs/claims.md: what is trained, by the real command, and what is read off it."""

import argparse
import io
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
import torch
import yaml
from PIL import Image
from torch import Tensor

from mirada.data.decode import decode
from mirada.data.sources import open_data
from mirada.evaluate.object_discovery import discover
from mirada.features import Backbone
from mirada.inspect import attention_distances, receptive_field
from mirada.inspect.look import even_distance
from mirada.loading import load
from mirada.model import Model
from mirada.train.folder import RunFolder, machine

RECORDS = Path(__file__).parent.parent / "docs" / "numbers" / "claims.jsonl"
SIDE = 64
SHOWN = 7  # pictures in the figure of objects
VIT = "vit-pico/8(dim={dim}, num_heads=4, pooling='average')"
KINDS = {  # about 0.22 million parameters each, but for the narrow and the wide transformer
    "ViT": VIT.format(dim=64),
    "CoAtNet": "coatnet-0(widths=(16, 16, 32, 64, 96), depths=(1, 1, 2, 1))",
    "ResNet": "resnet-18(depths=(1, 1, 1, 1), widths=(24, 40, 64, 88), stem_width=24)",
    "narrow ViT": VIT.format(dim=32),
    "wide ViT": VIT.format(dim=128),
}
CLASS_TOKEN = "vit-pico/8(dim=64, num_heads=4)"
VIEW = "{'base': 'simclr', 'blur': 0}"
STATES = {  # DINO as it learned most in five minutes on CIFAR-10 (docs/objectives.md), with fewer prototypes
    "with labels": "supervised",
    "DINO": f"dino(first={VIEW}, second={VIEW}, small=0, prototypes=256, teacher_temperature=0.01, "
            "early_temperature=0.01, momentum=0.97)",
    "DINO with its own views": "dino(small=0, prototypes=256)",
}  # fmt: skip


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
    for out in sorted(folder.parent for folder in options.runs.glob(f"{options.data.name}-*/model")):
        kind, share, seed = out.name.removeprefix(f"{options.data.name}-").rsplit("-", 2)
        trained, untrained = load(out), load(load(out).architecture)
        for model, state in ((trained, "trained"), (untrained, "untrained")):
            images = trained.prepare(pictures)
            fields = receptive_field(model.backbone, images)
            row = {
                "claim": "distance", "data": options.name, "kind": kind.replace("-", " "), "share": float(share),
                "seed": int(seed), "steps": RunFolder(out).read_config()[0].steps, "state": state,
                "images": len(images),
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
            for state in options.states:
                out, began = options.runs / folder_of(state, options.steps, seed), time.monotonic()
                command(data, out, seed=seed, model=CLASS_TOKEN, steps=options.steps, batch=options.batch,
                        image_size=SIDE, objective=STATES[state])  # fmt: skip
                found = discover(load(out), source, ("attention", "token-cut"), seed=seed).metrics
                record({
                    "claim": "objects", "state": state, "objective": STATES[state], "model": CLASS_TOKEN, "seed": seed,
                    "steps": options.steps, "batch": options.batch, "train_images": options.pictures,
                    "measured": len(source), "seconds": round(time.monotonic() - began),
                    "metrics": {key: round(100 * value, 2) for key, value in found.items()},
                })  # fmt: skip


def folder_of(state: str, steps: int, seed: int) -> str:
    return f"objects-{state.replace(',', '').replace(' ', '-')}-{steps}-{seed}"


def found_objects(options: argparse.Namespace) -> tuple[dict[str, Model], list[Image.Image], list[Tensor]]:
    """The networks that `objects` trained by seed 0, and pictures with masks of drawings that they did not see."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "composites"
        composites(options.emoji, options.photographs, data, 0, 1, SHOWN)
        rows = pq.read_table(data / "test.parquet").to_pylist()
    masks = [torch.from_numpy(np.asarray(Image.open(io.BytesIO(row["mask"]))) > 0) for row in rows]
    models = {state: load(options.runs / folder_of(state, options.steps, 0)) for state in options.states}
    return models, [decode(row["image"]) for row in rows], masks
