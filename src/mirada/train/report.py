"""`report.html`: one self-contained page that says how a run went, where it fails, and how to repeat it.

Everything is computed here; report.html beside this file only lays it out. The page makes no request of any kind (its
own Content-Security-Policy forbids it), so it can be mailed, archived and opened from a disk. Class and file names are
untrusted: they reach the page only through autoescaping, and its script only as text.
"""

import base64
import io
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from mirada.doctor.diagnosis import diagnose
from mirada.saving import write_whole

__all__ = ["Mistake", "write_report"]

HELD_OUT = {"val": "validation", "test": "test"}  # first part of a metric's name: measured on images not trained on
HEALTH = {  # titles of the doctor's charts, and which names belong in them
    "Dimensions that features use (RankMe)": r"health/rank",
    "Deviation of features (0: all images alike)": r"health/feature_deviation",
    "Labels that neighbours name rightly": r"health/knn",
    "What answers tell about an image (0: collapse)": r"health/.*_information",
    "Entropy of an answer (1: uniform)": r"health/.*_entropy",
    "Loss over that of guessing": r".*/relative_loss",
}
MAX_POINTS = 400  # of one curve; about as many as a screen can show
MAX_MORE = 24  # charts of other measurements
MAX_MISTAKES = 24
MAX_SKIPPED = 200
MAX_TABLE_CLASSES = 30  # a larger confusion matrix is drawn as a picture
THUMBNAIL = 224  # pixels of the longer side
OVERLAY = 96  # pixels of each side of an attention map, once enlarged

Row = dict[str, Any]
Array = NDArray[np.float64]


class Mistake(NamedTuple):
    """An image the model named wrongly, as the model saw it."""

    image: Image.Image  # RGB, any size
    attention: NDArray[Any] | None  # (h, w) in [0, 1]
    truth: str
    prediction: str
    confidence: float  # probability of the prediction
    path: str


class Line(NamedTuple):
    """One curve, ready to draw in a box of 1000 x 1000."""

    name: str
    style: str  # CSS classes: its colour, and "raw" (unsmoothed) or "dots"
    steps: list[float]
    values: list[float]
    path: str  # of an SVG


class Chart(NamedTuple):
    """Curves that share a box; steps run from left to right, values from bottom to top."""

    title: str
    lines: list[Line]
    steps: tuple[float, float]
    values: tuple[float, float]
    step_ticks: list[tuple[float, str]]  # percent from the left, label
    value_ticks: list[tuple[float, str]]  # percent from the top, label
    percent: bool
    note: str


def write_report(
    path: Path, *, title: str, command: str, summary: dict[str, str | float | int], metrics: list[Row],
    config_text: str, classes: Sequence[str] = (), confusion: NDArray[Any] | None = None,
    mistakes: Sequence[Mistake] = (), skipped: Sequence[dict[str, str]] = (),
) -> Path:  # fmt: skip
    """Write the page to `path` and return it. What a run does not have (classes, mistakes) the page does not show.

    Args:
        summary: `accuracy`, `low`, `high` (its 95% interval), `chance` (all fractions), or `found` and `found_of_five`
            (shares of captions whose image comes first, or among the first five), `count` (images it was measured
            on) and `split` make the verdict, where given; every other entry (model, images, seconds, machine, ...) is
            listed under its name, in this order.
        metrics: the rows of metrics.jsonl; numbers that are missing or not finite are left out, and said so. What the
            doctor makes of them has a part of its own.
        confusion: (C, C) counts; rows are the truth.
        mistakes: all or the most confident ones; no more than 24 are shown.
        skipped: {"path", "reason"} of every file that was not used.
    """
    drawn, healthy, more = charts(metrics)
    counts = None if confusion is None or not classes else np.asarray(confusion, np.float64)
    verdict, facts = judge(summary, counts, drawn)
    worst = sorted(mistakes, key=lambda mistake: -finite(mistake.confidence, 0.0))[:MAX_MISTAKES]
    wrong = len(mistakes) if counts is None else max(len(mistakes), int(counts.sum() - counts.trace()))
    cells = [] if counts is None else np.argwhere(counts > 0).tolist()
    steps, seconds, _ = series(metrics, "seconds")
    kept = thin(seconds, seconds)
    page = environment().get_template("report.html").render(
        title=title, command=command, verdict=verdict, facts=facts, charts=drawn, more=more, classes=classes,
        health=healthy, alarms=diagnose(metrics),
        confusion=None if counts is None else confusion_view(counts),
        pairs=[] if counts is None else confused_pairs(counts),
        table=[] if counts is None else class_table(counts),
        mistakes=[(mistake, *pictures(mistake)) for mistake in worst], number_of_mistakes=wrong,
        skipped=skipped[:MAX_SKIPPED], number_skipped=len(skipped), config_text=config_text,
        data={  # for the page's script
            "charts": [
                {"steps": chart.steps, "percent": chart.percent,
                 "lines": [{"steps": line.steps, "values": line.values} for line in chart.lines]}
                for chart in drawn + healthy + more
            ],
            "clock": {"steps": steps[kept].tolist(), "seconds": seconds[kept].round(1).tolist()},
            "classes": classes,
            "confusion": [] if counts is None else [(*cell, int(counts[*cell])) for cell in cells],
        },
    )  # fmt: skip
    write_whole(path, page)
    return path


def environment() -> Environment:
    """Jinja with escaping, and how this page writes numbers."""
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    jinja.filters.update(percent=percent, number=number)
    return jinja


def finite(value: Any, default: float = math.nan) -> float:
    """`value` as a float if it is a finite number, else the default."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return float(value) if is_number and bool(abs(value) < 1e100) else default


def percent(value: Any, digits: int = 0) -> str:
    return "–" if math.isnan(finite(value)) else f"{100 * value:.{digits}f}%"


def number(value: Any) -> str:
    """Up to four significant digits, or all of a whole number; whatever is no number, as it is."""
    if math.isnan(finite(value)):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:,.4g}"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def judge(
    summary: dict[str, str | float | int], confusion: Array | None, drawn: list[Chart]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What the header says: the accuracy against chance, or else how the loss moved; and the facts below it.

    Where the summary is silent, chance is what always naming the most frequent class would reach.
    """
    facts = dict(summary)
    split, count = str(facts.pop("split", "val")), facts.pop("count", "")
    accuracy, chance, low, high = (finite(facts.pop(key, None)) for key in ("accuracy", "chance", "low", "high"))
    if confusion is not None and (total := float(confusion.sum())) > 0:
        accuracy = float(confusion.trace()) / total if math.isnan(accuracy) else accuracy
        chance = float(confusion.sum(1).max()) / total if math.isnan(chance) else chance
    verdict: dict[str, Any] = {"accuracy": None, "chance": None, "interval": None, "loss": None, "found": None}
    verdict["images"] = f"{number(count)} {HELD_OUT.get(split, split)} images".strip()
    if not math.isnan(accuracy):
        verdict["accuracy"] = accuracy
        verdict["chance"] = None if math.isnan(chance) else chance
        verdict["interval"] = (low, high) if low <= high else None
    elif "found" in facts:
        verdict["found"] = (finite(facts.pop("found")), finite(facts.pop("found_of_five")))
    elif drawn and drawn[0].title == "Loss":
        smoothed = next(line for line in drawn[0].lines if "raw" not in line.style)
        verdict["loss"] = (smoothed.values[0], smoothed.values[-1])
    if not math.isnan(seconds := finite(facts.get("seconds"))):
        facts = {("time" if key == "seconds" else key): value for key, value in facts.items()}
        facts["time"] = duration(seconds)
    return verdict, [(key.replace("_", " "), number(value)) for key, value in facts.items()]


def charts(metrics: list[Row]) -> tuple[list[Chart], list[Chart], list[Chart]]:
    """The curves everybody wants, those of the run's health, and one small chart for every other number."""
    keys = list(dict.fromkeys(key for row in metrics for key in row if key not in ("step", "progress", "seconds")))
    losses = [key for key in keys if key in ("loss", *(f"{split}/loss" for split in HELD_OUT))]
    accuracies = [key for key in keys if key.endswith("/accuracy")]
    drawn = [
        chart("Loss", metrics, losses),
        chart("Accuracy", metrics, accuracies, percent=True),
        chart("Learning rate", metrics, ["learning_rate"], noisy=False),
    ]
    health = [chart(title, metrics, named) for title, named in health_keys(keys).items()]
    shown = {"health/image_deviation", "learning_rate", *losses, *accuracies}.union(*health_keys(keys).values())
    rest = [key for key in keys if key not in shown][:MAX_MORE]
    more = [chart(key.replace("_", " "), metrics, [key]) for key in rest]
    return [one for one in drawn if one], [one for one in health if one], [one for one in more if one]


def health_keys(keys: list[str]) -> dict[str, list[str]]:
    """The doctor's charts: the numbers that belong into one box under its title."""
    if not any(key.startswith("health/") for key in keys):
        return {}
    found = {title: [key for key in keys if re.fullmatch(name, key)] for title, name in HEALTH.items()}
    return {title: named for title, named in found.items() if named}


def chart(
    title: str, metrics: list[Row], keys: list[str], *, percent: bool = False, noisy: bool = True
) -> Chart | None:
    """The curves of `keys` in one box, or None where no value of theirs can be drawn.

    Noisy curves of training are smoothed; where there is one only, its values stay faintly behind it.
    """
    curves: list[tuple[str, str, Array, Array]] = []  # name, style, steps, values
    notes = []
    trained = [key for key in keys if key.partition("/")[0] not in HELD_OUT]
    for key in keys:
        steps, values, lost = series(metrics, key)
        if len(lost):
            rows = "1 row" if len(lost) == 1 else f"{len(lost):,} rows"
            notes.append(f"{key} was not a finite number in {rows}, first at step {lost[0]:,.0f}.")
        if not len(values):
            continue
        split = key.removeprefix("health/").partition("/")[0]
        smoothed = smooth(values) if noisy and split not in HELD_OUT else values
        kept = thin(values, smoothed)
        steps, values, smoothed = steps[kept], values[kept], smoothed[kept]
        if split in HELD_OUT:
            curves.append((HELD_OUT[split], f"{split} dots", steps, values))
            continue
        name = split if len(trained) > 1 else "training" if len(keys) > 1 else "value"
        colour = f"line{trained.index(key) % 4}"
        if len(trained) == 1 and not np.array_equal(smoothed, values):
            curves.append(("unsmoothed", f"{colour} raw", steps, values))
            name = "smoothed" if len(keys) == 1 else name
        curves.append((name, colour, steps, smoothed))
    if not curves:
        return None
    # One spike shall not flatten everything else: of unsmoothed values the outermost hundredths may leave the box.
    inner = [np.quantile(values, (0.01, 0.99)) if "raw" in style else values for _, style, _, values in curves]
    low, high = extremes(inner)
    rungs = ticks(low if noisy and not percent else min(0.0, low), high, 4)
    bottom, top = rungs[0], rungs[-1]
    first, last = extremes([steps for _, _, steps, _ in curves])
    last = max(last, first + 1)
    lines = []
    for name, style, steps, values in curves:
        x = 1000 * (steps - first) / (last - first)
        y = np.clip(1000 * (top - values) / (top - bottom), -1000, 2000)
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append(Line(name, style, steps.tolist(), [float(f"{value:.5g}") for value in values], path))
    return Chart(
        title, lines, (first, last), (bottom, top),
        [(100 * (at - first) / (last - first), f"{at:,.6g}") for at in ticks(first, last, 6) if first <= at <= last],
        [(100 * (top - at) / (top - bottom), f"{100 * at:.3g}%" if percent else f"{at:,.4g}") for at in rungs],
        percent, " ".join(notes),
    )  # fmt: skip


def series(metrics: list[Row], key: str) -> tuple[Array, Array, Array]:
    """Steps and values of the rows that have `key`, in order of steps; and the steps at which it was not finite."""
    rows = [(finite(row.get("step"), index), finite(row[key])) for index, row in enumerate(metrics) if key in row]
    table = np.array(sorted(rows, key=lambda row: row[0]), np.float64).reshape(-1, 2)
    lost = np.isnan(table[:, 1])
    return table[~lost, 0], table[~lost, 1], table[lost, 0]


def smooth(values: Array) -> Array:
    """A moving average (Hann window) over a twentieth of the curve; centred, so that it does not lag behind.

    The outermost hundredths are clipped before, else one spike would stand as a hill in it. Short curves stay.
    """
    width = len(values) // 20 | 1
    if width < 3:
        return values
    window = np.hanning(width + 2)[1:-1]
    tame = np.clip(values, *np.quantile(values, (0.01, 0.99)))
    return np.convolve(tame, window, "same") / np.convolve(np.ones_like(tame), window, "same")


def thin(values: Array, smoothed: Array) -> NDArray[np.int64]:
    """At most MAX_POINTS indices: of each stretch the value furthest from the smoothed curve, so that spikes stay."""
    if len(values) <= MAX_POINTS:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), MAX_POINTS - 1).astype(int)
    deviation = np.abs(values - smoothed)
    picked = [start + int(deviation[start:end].argmax()) for start, end in pairwise(edges)]
    return np.unique([0, *picked, len(values) - 1])


def extremes(arrays: Sequence[Array]) -> tuple[float, float]:
    """The smallest and the largest number in any of them."""
    return float(min(array.min() for array in arrays)), float(max(array.max() for array in arrays))


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers, from at most `low` to at least `high`."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-290):
        high = low + (abs(low) if abs(low) > 1e-290 else 1.0)
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = unit * next(factor for factor in (1, 2, 5, 10) if count * unit * factor >= 0.999 * (high - low))
    return [index * step for index in range(math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6) + 1)]


def confusion_view(confusion: Array) -> dict[str, Any]:
    """Cells of a table (count, share of the row, strength of colour), or a picture of a pixel each where they are many.

    The strength of an error is its share to the power 0.4: the rare ones are what one looks for.
    """
    correct = np.eye(len(confusion), dtype=bool)
    share = confusion / confusion.sum(1, keepdims=True).clip(1)  # a class without images is a row of zeros
    strength = np.where(correct, share, share**0.4)
    if len(confusion) <= MAX_TABLE_CLASSES:
        return {"picture": None, "cells": np.dstack([confusion, share, strength]).tolist()}
    colour = np.where(correct[:, :, None], (72, 105, 230), (214, 88, 24))  # as --right and --wrong in report.html
    pixels = np.dstack([colour, np.round(255 * strength)]).astype(np.uint8)
    return {"picture": data_uri(Image.fromarray(pixels), "PNG"), "cells": []}


def confused_pairs(confusion: Array) -> list[tuple[int, int, int, int]]:
    """The ten most frequent errors: truth, prediction, how often, of how many."""
    errors = np.where(np.eye(len(confusion), dtype=bool), 0, confusion)
    pairs = [divmod(int(flat), len(errors)) for flat in np.argsort(-errors, axis=None, kind="stable")[:10]]
    found = [(truth, said, int(errors[truth, said]), int(confusion[truth].sum())) for truth, said in pairs]
    return [pair for pair in found if pair[2] > 0]


def class_table(confusion: Array) -> list[tuple[float, ...]]:
    """Images, precision, recall and F1 of each class; nan where there is nothing to divide by."""
    images, named, hits = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    with np.errstate(invalid="ignore"):
        columns = [images, hits / named, hits / images, 2 * hits / (images + named)]
    return [tuple(row) for row in np.stack(columns, axis=1).tolist()]


def pictures(mistake: Mistake) -> tuple[str, str | None, int, int]:
    """The image and its attention as data URIs, and what width and height (percent) fit them into a square."""
    side = max(mistake.image.size)
    width, height = (max(1, round(THUMBNAIL * length / side)) for length in mistake.image.size)
    image = mistake.image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    overlay = None
    if mistake.attention is not None:
        attention = np.nan_to_num(np.asarray(mistake.attention, np.float32)).clip(0, 1)
        enlarged = Image.fromarray(attention).resize((OVERLAY, OVERLAY), Image.Resampling.BILINEAR)
        colours = matplotlib.colormaps["inferno"](np.asarray(enlarged), bytes=True)
        overlay = data_uri(Image.fromarray(colours[:, :, :3]), "PNG")
    return data_uri(image, "JPEG", quality=80), overlay, 100 * width // THUMBNAIL, 100 * height // THUMBNAIL


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """The encoded image itself, where an address is expected."""
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
