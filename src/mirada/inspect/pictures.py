"""The pictures of `mirada inspect` as matplotlib figures, for notebooks and papers.

    seen = look(model, Image.open("cat.jpg").convert("RGB"))
    heads_figure(seen, layer=-1).savefig("heads.pdf")

Layers and heads are counted as Python counts, from 0, and -1 is the last; a patch is (row, column). The figures know
nothing of pyplot: none stays open, and a notebook shows the last one of a cell by itself.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from mirada.errors import MiradaError
from mirada.features import within
from mirada.inspect.look import LayerLook, Look

__all__ = [
    "Picture", "attention_figure", "compare_figure", "distance_figure", "filters_figure", "heads_figure",
    "objects_figure", "pca_figure", "position_figure", "rollout_figure", "words_figure",
]  # fmt: skip

COLOURS = "magma"
SIDE = 1.6  # inches of a small picture
MOST_COLUMNS = 6
Place = tuple[int, int]  # row and column of a patch


class Picture(Figure):
    """A figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


def attention_figure(seen: Look, layer: int = -1, head: int | None = None, patch: Place | None = None) -> Picture:
    """What one head, or all of them in the mean, attends to from a patch, or from the whole image if None: over the
    image. Raises `MiradaError` for a layer, head or patch that there is not, or a model without attention."""
    chosen = seen.layer(layer)
    figure, (axes,) = grid_of(1, 4.0)
    who = "all heads" if head is None else f"head {head % len(chosen.attention)}"
    overlay(axes, seen, attention_map(chosen, head, patch), f"layer {layer % len(seen.layers)}, {who}")
    mark(axes, chosen, patch)
    return figure


def heads_figure(seen: Look, layer: int = -1, patch: Place | None = None) -> Picture:
    """Every head of a layer as a small picture, with its mean attention distance. Raises as `attention_figure`."""
    chosen = seen.layer(layer)
    figure, many = grid_of(len(chosen.attention))
    for head, axes in enumerate(many):
        title = f"head {head}: {float(chosen.distance[head]):.0f} px"
        overlay(axes, seen, attention_map(chosen, head, patch), title)
        mark(axes, chosen, patch)
    figure.suptitle(f"layer {layer % len(seen.layers)}")
    return figure


def rollout_figure(seen: Look) -> Picture:
    """Attention rollout through the first layer, the first two, and so on."""
    seen.layer(0)
    figure, many = grid_of(len(seen.layers))
    for index, (axes, layer) in enumerate(zip(many, seen.layers, strict=True)):
        overlay(axes, seen, array(layer.rollout), f"to layer {index}")
    return figure


def distance_figure(seen: Look | Sequence[Look], names: Sequence[str] = ()) -> Picture:
    """Mean attention distance of each head by depth, of one image or of several models; dashed, what a head has that
    attends to all patches alike."""
    looks = [seen] if isinstance(seen, Look) else list(seen)
    figure = Picture(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for number, one in enumerate(looks):
        one.layer(0)
        points = [(index, value) for index, layer in enumerate(one.layers) for value in layer.distance.tolist()]
        label = names[number] if number < len(names) else None
        x, y = zip(*points, strict=True)
        shift = 0.18 * (number - (len(looks) - 1) / 2)
        axes.scatter(np.array(x) + shift, y, 22, f"C{number}", alpha=0.6, linewidths=0, label=label)
        even = [layer.even_distance for layer in one.layers]
        axes.plot(range(len(even)), even, f"C{number}--", linewidth=1)
    axes.set(xlabel="layer", ylabel="attention distance (pixels)", ylim=(0, 1.05 * axes.dataLim.y1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if names:
        axes.legend()
    return figure


def position_figure(similarity: Tensor) -> Picture:
    """Cosines of all positions with each one, (H, W, H, W), as `mirada.inspect.position_similarity` gives them: a small
    map for each place."""
    height, width = similarity.shape[:2]
    values = array(similarity)
    gap = np.full((height, width, height + 1, width + 1), np.nan)
    gap[:, :, :-1, :-1] = values
    figure, (axes,) = grid_of(1, 5.0)
    drawn = axes.imshow(gap.transpose(0, 2, 1, 3).reshape(height * (height + 1), -1)[:-1, :-1], COLOURS, vmax=1)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="cosine")
    return figure


def pca_figure(seen: Look) -> Picture:
    """The image beside the first three principal components of its patches as red, green and blue."""
    figure, (left, right) = grid_of(2, 3.2)
    left.imshow(seen.picture)
    right.imshow(array(seen.colours))
    return figure


def objects_figure(seen: Look) -> Picture:
    """What each method takes for an object: the rest is dark."""
    figure, many = grid_of(len(seen.objects), 2.4)
    for axes, found in zip(many, seen.objects, strict=True):
        dark = np.zeros((*found.mask.shape, 4))
        dark[..., 3] = np.where(found.mask.numpy(), 0, 0.75)
        axes.imshow(seen.picture, extent=(0, 1, 1, 0), aspect="auto")
        axes.imshow(dark, extent=(0, 1, 1, 0), interpolation="nearest", aspect="auto")
        axes.set_box_aspect(seen.picture.height / seen.picture.width)
        axes.set_title(found.method, fontsize=9)
    return figure


def words_figure(seen: Look) -> Picture:
    """Where each text is. Raises `MiradaError` where `look` was given none."""
    if not seen.words:
        raise MiradaError("There are no words to show: give some to look, with a model that has a text tower.")
    figure, many = grid_of(len(seen.words), 2.4)
    for axes, (word, cosines) in zip(many, seen.words.items(), strict=True):
        overlay(axes, seen, array(cosines), word)
    return figure


def filters_figure(filters: Tensor) -> Picture:
    """Filters (count, 3, p, p), each stretched to the whole range of colours."""
    figure, many = grid_of(len(filters), 0.7, 7)
    for axes, one in zip(many, array(filters).transpose(0, 2, 3, 1), strict=True):
        axes.imshow((one - one.min()) / max(float(one.max() - one.min()), 1e-12), interpolation="nearest")
    return figure


def compare_figure(looks: Sequence[Look], names: Sequence[str]) -> Picture:
    """Models side by side, one column each: the image, attention of the last layer, rollout, and principal components;
    what a model does not have stays empty."""
    figure, many = grid_of(4 * len(looks), 2.2, len(looks))
    for column, (seen, name) in enumerate(zip(looks, names, strict=True)):
        image, attention, rollout, colours = many[column :: len(looks)]
        image.imshow(seen.picture)
        image.set_title(name, fontsize=9, parse_math=False)
        colours.imshow(array(seen.colours))
        if seen.layers:
            overlay(attention, seen, array(seen.layers[-1].summary.mean(0)), "")
            overlay(rollout, seen, array(seen.layers[-1].rollout), "")
    for axes, title in zip(many[:: len(looks)], ("image", "attention", "rollout", "components"), strict=True):
        axes.text(-0.04, 0.5, title, transform=axes.transAxes, rotation=90, ha="right", va="center", fontsize=9)
    return figure


def attention_map(layer: LayerLook, head: int | None, patch: Place | None) -> NDArray[np.float64]:
    """(H, W): shares of attention of one head, or the mean of all; patches of one block are equal."""
    if head is not None:
        within([head], len(layer.attention), "head")
    if patch is None:
        maps = layer.summary
    else:
        for index, count, what in zip(patch, layer.grid, ("row of patches", "column of patches"), strict=True):
            within([index], count, what)
        row, column = (index % count // layer.block for index, count in zip(patch, layer.grid, strict=True))
        maps = layer.attention[:, row, column].float()
        maps = maps.repeat_interleave(layer.block, 1).repeat_interleave(layer.block, 2)
        maps = maps[:, : layer.grid[0], : layer.grid[1]]
    return array(maps.mean(0) if head is None else maps[head])


def grid_of(count: int, side: float = SIDE, columns: int = MOST_COLUMNS) -> tuple[Picture, list[Axes]]:
    """A figure of so many pictures without ticks."""
    columns = min(columns, max(1, count))
    rows = max(1, -(-count // columns))
    figure = Picture(figsize=(side * columns, (side + 0.2) * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
    for one in axes:
        one.set_axis_off()
    return figure, axes


def overlay(axes: Axes, seen: Look, values: NDArray[np.float64], title: str) -> None:
    """A map over the image, in its own range, both stretched over the unit square."""
    axes.imshow(seen.picture, extent=(0, 1, 1, 0), aspect="auto")
    axes.imshow(values, COLOURS, extent=(0, 1, 1, 0), alpha=0.65, interpolation="bilinear", aspect="auto")
    axes.set_box_aspect(seen.picture.height / seen.picture.width)
    axes.set_title(title, fontsize=9, parse_math=False)


def mark(axes: Axes, layer: LayerLook, patch: Place | None) -> None:
    """A dot on the patch that is looked from."""
    if patch is not None:
        row, column = ((index % count + 0.5) / count for index, count in zip(patch, layer.grid, strict=True))
        axes.plot([column], [row], "wo", markeredgecolor="black", markersize=5)


def array(values: Tensor) -> NDArray[Any]:
    return values.float().numpy()
