"""The figures of docs/claims.md that show what runs measured."""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from mirada.features import Layer
from mirada.inspect import class_attention, every_layer
from mirada.inspect.pictures import Picture
from mirada.model import Model

Rows = list[dict[str, Any]]
COLOURS = {"ViT": "C0", "CoAtNet": "C1", "ResNet": "C2"}
WIDTHS = ("narrow ViT", "ViT", "wide ViT")


def means(rows: Rows, data: str, kind: str, by: str = "images") -> dict[float, float]:
    """Mean accuracy over seeds, by images to train on."""
    found: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if (row["data"], row["kind"]) == (data, kind):
            found[row[by]].append(row["accuracy"])
    return {key: float(np.mean(found[key])) for key in sorted(found)}


def names_of(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["data"] for row in rows))


def bias_figure(rows: Rows) -> Picture:
    """Accuracy against images to train on: a line for each network and a dot for each run, a panel for each data."""
    names = names_of(rows)
    figure = Picture(figsize=(4.6 * len(names), 3.8), layout="constrained")
    for panel, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), panel + 1)
        for kind, colour in COLOURS.items():
            mean = means(rows, name, kind)
            axes.plot(list(mean), list(mean.values()), color=colour, label=kind)
            runs = [row for row in rows if (row["data"], row["kind"]) == (name, kind)]
            axes.scatter([row["images"] for row in runs], [row["accuracy"] for row in runs], 26, colour, alpha=0.6,
                         linewidths=0)  # fmt: skip
        ticks = sorted({row["images"] for row in rows if row["data"] == name})
        axes.set(xscale="log", xlabel="images to train on", ylabel="test accuracy (%)", title=name)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        tidy(axes, 3)
    return figure


def scale_figure(rows: Rows, name: str) -> Picture:
    """Accuracy against parameters, a line for each amount of data: three widths of a transformer, and the others."""
    amounts = sorted({row["images"] for row in rows if row["data"] == name and row["kind"] == "wide ViT"})
    size = {row["kind"]: row["parameters"] for row in rows}
    figure = Picture(figsize=(6.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for number, amount in enumerate(amounts):
        colour = f"C{3 + number}"
        scores = {kind: mean[amount] for kind in size if amount in (mean := means(rows, name, kind))}
        widths = [kind for kind in WIDTHS if kind in scores]
        for kinds, marker in ((widths, "o-"), (["CoAtNet"], "^"), (["ResNet"], "s")):
            if set(kinds) <= set(scores):
                axes.plot([size[kind] for kind in kinds], [scores[kind] for kind in kinds], marker, color=colour,
                          label=f"{'ViT' if kinds is widths else kinds[0]}, {amount:,} images")  # fmt: skip
    ticks = sorted({size[kind] for kind in WIDTHS if kind in size})
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy (%)", title=name)
    axes.set_xticks(ticks, [f"{tick / 1e6:.2f} million" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def longest_vit(rows: Rows) -> Rows:
    """Of what the transformer's attention was looked at in, the longest runs."""
    vit = [row for row in rows if row["kind"].startswith("ViT") and row["seed"] == 0]
    return [row for row in vit if row["steps"] == max(one["steps"] for one in vit)]


def distance_figure(rows: Rows) -> Picture:
    """Left, the attention distance of a transformer's heads by depth, untrained and after little and much data; right,
    how far the middle of each stage sees, for all kinds."""
    figure = Picture(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    vit = longest_vit(rows)
    shares = sorted({row["share"] for row in vit})
    heads = [row for row in vit if row["state"] == "trained" and row["share"] in (shares[0], shares[-1])]
    heads = [*(row for row in vit if row["state"] == "untrained" and row["share"] == shares[-1]), *heads]
    heads.sort(key=lambda row: (row["state"] == "trained", row["share"]))
    for number, row in enumerate(heads):
        points = [(layer + 1, value) for layer, values in enumerate(row["heads"]) for value in values]
        x, y = (np.array(values) for values in zip(*points, strict=True))
        label = f"{100 * row['share']:g}% of the data" if row["state"] == "trained" else "untrained"
        colour = ("grey", "C3", "C0")[number]
        left.scatter(x + 0.12 * (number - (len(heads) - 1) / 2), y, 30, colour, alpha=0.8, linewidths=0, label=label)
    left.axhline(heads[-1]["even"][0], color="black", linestyle="--", linewidth=1, label="attention spread evenly")
    left.set(xlabel="layer", ylabel="attention distance (pixels)", xticks=range(1, 1 + len(heads[-1]["heads"])))
    left.set_title(f"ViT, {heads[-1]['steps']:,} updates: a dot is a head", fontsize=10)
    for kind, colour in COLOURS.items():
        for row in rows:
            if row["kind"] == kind and row["share"] == max(one["share"] for one in rows):
                fields = [value for name, value in row["fields"] if name != "end"]
                trained = row["state"] == "trained"
                right.plot(np.linspace(0, 1, len(fields)), fields, "o-" if trained else "o:", color=colour,
                           alpha=1 if trained else 0.4, label=kind + ("" if trained else ", untrained"))  # fmt: skip
    right.set(xlabel="depth (0: first stage or layer, 1: last)", ylabel="effective receptive field (pixels)")
    right.set_title("how far from the middle the pixels lie that matter to it", fontsize=10)
    for axes in (left, right):
        tidy(axes)
    return figure


def objects_figure(models: dict[str, Model], pictures: list[Image.Image], masks: list[Tensor]) -> Picture:
    """A column for each picture: the picture, its mask, and for each model the attention of the head of the last layer
    that gives the mask most: scores of attention take the best head for each picture, too."""
    figure = Picture(figsize=(1.35 * len(pictures) + 0.3, 1.35 * (2 + len(models))))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    grid = figure.subplots(2 + len(models), len(pictures), squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for column, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        grid[0, column].imshow(picture)
        grid[1, column].imshow(mask, cmap="gray")
    for row, (name, model) in enumerate(models.items(), 2):
        attention = every_layer(model.backbone, model.prepare(pictures), last_attention)[-1]
        for column, (heads, mask) in enumerate(zip(attention, masks, strict=True)):
            small = torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), heads.shape[-2:])[0]
            best = (heads * small).sum((1, 2)).div(heads.sum((1, 2))).argmax()
            grid[row, column].imshow(heads[best], cmap="magma")
        grid[row, 0].set_ylabel(name, fontsize=9)
    grid[0, 0].set_ylabel("picture", fontsize=9)
    grid[1, 0].set_ylabel("mask", fontsize=9)
    return figure


def last_attention(layer: Layer) -> Tensor:
    return class_attention(layer)


def tidy(axes: Axes, columns: int = 2) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, frameon=False)
