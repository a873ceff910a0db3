"""The figures of docs/claims.md: what four pretext tasks ask of one photograph, and what runs measured."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mirada.data.decode import decode, to_canvas
from mirada.data.samples import Samples
from mirada.inspect.pictures import Picture, array
from mirada.objectives.colorization import SRGB_TO_XYZ, WHITE, lab
from mirada.objectives.jigsaw import orders
from mirada.objectives.relative_position import SIDES
from mirada.objectives.table import OBJECTIVES

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIDE, STRIDE = 224, 16
COLOURS = {"ViT": "C0", "CoAtNet": "C1", "ResNet": "C2", "narrow ViT": "C4", "wide ViT": "C3"}


class Shape:
    """As much of a backbone as an objective asks for to make its views."""

    dim, stem_dim, stride, drops_tokens = 8, 8, STRIDE, False


def save(figure: Picture, name: str) -> None:
    """As a PNG of few colours; figures are small."""
    target = IMAGES / f"{name}.png"
    figure.savefig(target, dpi=110)
    Image.open(target).convert("RGB").quantize(200).save(target, optimize=True)


def tasks_figure(photograph: Path) -> Picture:
    """A row for each task: what the network is shown, and what it is to answer."""
    canvas, aspect = to_canvas(decode(photograph.read_bytes()), SIDE)
    half = torch.full((3,), 0.5)
    figure = Picture(figsize=(7.4, 9), layout="constrained")
    rows = figure.subfigures(4, 1)
    for row, (name, draw, question, seed, options) in enumerate(TASKS):
        samples = Samples(canvas[None], torch.tensor([aspect]), torch.tensor([-1]), size=(SIDE, SIDE), seed=seed,
                          mean=half, std=half)  # fmt: skip
        torch.manual_seed(seed)
        views = OBJECTIVES[name](Shape(), augment="none", **options).views(samples)  # type: ignore[operator]
        left, right = rows[row].subfigures(1, 2)
        for part, title in ((left, "shown" if row == 0 else ""), (right, "asked" if row == 0 else "")):
            part.suptitle(title, fontsize=11, fontweight="bold")
        draw(left, right, views, samples)
        rows[row].supylabel(name.replace("_", " "), fontsize=11)
        right.supxlabel(question, fontsize=9)
    return figure


def show(axes: Axes, image: Tensor, title: str = "") -> None:
    """Colours (3, H, W) in 0..1."""
    axes.imshow(array(image.clamp(0, 1).permute(1, 2, 0)))
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)


def rotation(left: Any, right: Any, views: dict[str, Tensor], samples: Samples) -> None:
    show(left.add_subplot(), samples.pixels(views["image"])[0])
    shown = samples.pixels(views["image"])[0]
    for turns in range(4):
        axes = right.add_subplot(1, 4, turns + 1)
        show(axes, torch.rot90(shown, turns - int(views["label"]), (1, 2)), f"{90 * turns}°")
        frame(axes, turns == int(views["label"]))


def jigsaw(left: Any, right: Any, views: dict[str, Tensor], samples: Samples) -> None:
    del samples
    tiles = views["tiles"] / 4 + 0.5  # each has zero mean and unit deviation
    order = orders(100)[int(views["label"])].tolist()
    for place in range(9):
        show(left.add_subplot(3, 3, place + 1), tiles[place])
        axes = right.add_subplot(3, 3, place + 1)
        show(axes, tiles[order.index(place)])
        for one, number in ((left.axes[place], place), (axes, order.index(place))):
            one.text(-0.08, 0.5, number + 1, transform=one.transAxes, ha="right", va="center", fontsize=9)


def relative_position(left: Any, right: Any, views: dict[str, Tensor], samples: Samples) -> None:
    del samples
    tiles = views["image"] / 4 + 0.5
    for place, title in enumerate(("a tile", "its neighbour")):
        show(left.add_subplot(1, 2, place + 1), tiles[place], title)
    for number, (down, along) in enumerate([*SIDES, (0, 0)]):
        axes = right.add_subplot(3, 3, 3 * (down + 1) + along + 2)
        if number == int(views["label"]) or number == len(SIDES):
            show(axes, tiles[int(number != len(SIDES))])
        axes.set_box_aspect(1)
        frame(axes, number == int(views["label"]))


def colorization(left: Any, right: Any, views: dict[str, Tensor], samples: Samples) -> None:
    show(left.add_subplot(), samples.pixels(views["image"])[0])
    coarse = F.avg_pool2d(views["ab"], STRIDE)
    colours = torch.cat([torch.full_like(coarse[:, :1], 65.0), coarse], 1)
    show(right.add_subplot(1, 2, 1), F.interpolate(srgb(colours), scale_factor=STRIDE)[0], "colour of each patch")
    light = 100 * samples.pixels(views["image"])[:, :1]
    both = torch.cat([light, F.interpolate(coarse, scale_factor=STRIDE, mode="bilinear")], 1)
    show(right.add_subplot(1, 2, 2), srgb(both)[0], "with the lightness")


TASKS: list[tuple[str, Any, str, int, dict[str, Any]]] = [
    ("rotation", rotation, "by how much was it turned? (4 answers)", 1, {}),
    ("jigsaw", jigsaw, "in which of 100 orders do the tiles come?", 3, {"grey": 0.0}),
    ("relative_position", relative_position, "on which side is the neighbour? (8 answers)", 6, {"grey": 0.0}),
    ("colorization", colorization, "which colour has each patch? (313 bins)", 0, {}),
]


def frame(axes: Axes, right: bool) -> None:
    """A frame around the right answer."""
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="C3" if right else "lightgrey", linewidth=2.5 if right else 1)


def srgb(colours: Tensor) -> Tensor:
    """The inverse of `lab`, cut to what a screen can show."""
    light, a, b = colours.unbind(1)
    y = (light + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    matrix = (torch.tensor(SRGB_TO_XYZ) / torch.tensor(WHITE)[:, None]).inverse()
    linear = torch.einsum("ij,bjhw->bihw", matrix, xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


assert float((srgb(lab(sample := torch.rand(1, 3, 8, 8))) - sample).abs().max()) < 1e-3


def bias_figure(rows: list[dict[str, Any]]) -> Picture:
    """Accuracy against images to train on, a line for each network and a panel for each data set."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Picture(figsize=(5.2 * len(names), 3.5), layout="constrained")
    for panel, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), panel + 1)
        for kind, colour in COLOURS.items():
            scores: dict[int, list[float]] = defaultdict(list)
            for row in rows:
                if (row["data"], row["kind"]) == (name, kind):
                    scores[row["images"]].append(row["accuracy"])
            if scores:
                points = sorted(scores)
                axes.plot(points, [np.mean(scores[one]) for one in points], "o-", color=colour, label=kind)
        axes.set(xscale="log", xlabel="images to train on", ylabel="test accuracy (%)", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def distance_figure(rows: list[dict[str, Any]]) -> Picture:
    """Left, the attention distance of a transformer's heads by depth, untrained and after little and much data; right,
    how far the middle of each stage sees, for all kinds."""
    figure = Picture(figsize=(10.4, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    shares = sorted({row["share"] for row in rows if row["kind"] == "ViT"})
    heads = [row for row in rows if row["kind"] == "ViT" and (row["state"] == "trained" or row["share"] == shares[-1])]
    heads.sort(key=lambda row: (row["state"] == "trained", row["share"]))
    for number, row in enumerate(heads):
        points = [(layer + 1, value) for layer, values in enumerate(row["heads"]) for value in values]
        x, y = (np.array(values) for values in zip(*points, strict=True))
        label = f"{100 * row['share']:g}% of the data" if row["state"] == "trained" else "untrained"
        colour = f"C{number}" if row["state"] == "trained" else "grey"
        left.scatter(x + 0.09 * (number - (len(heads) - 1) / 2), y, 26, colour, alpha=0.75, linewidths=0, label=label)
    left.axhline(heads[-1]["even"][0], color="black", linestyle="--", linewidth=1)
    left.set(xlabel="layer", ylabel="attention distance (pixels)", xticks=range(1, 1 + len(heads[-1]["heads"])))
    left.set_title("ViT: a dot is a head; dashed, attention spread evenly", fontsize=9)
    left.legend(fontsize=8)
    for kind in ("ViT", "CoAtNet", "ResNet"):
        for row in rows:
            if row["kind"] == kind and row["share"] == shares[-1]:
                fields = [value for name, value in row["fields"] if name != "end"]
                trained = row["state"] == "trained"
                right.plot(np.linspace(0, 1, len(fields)), fields, "o-" if trained else "o:", color=COLOURS[kind],
                           alpha=1 if trained else 0.4, label=kind + ("" if trained else ", untrained"))  # fmt: skip
    right.set(xlabel="depth (0: first stage or layer, 1: last)", ylabel="effective receptive field (pixels)")
    right.set_title("how far off lie the pixels that matter to the middle, in the mean", fontsize=9)
    right.legend(fontsize=8)
    return figure
