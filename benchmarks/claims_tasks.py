"""What four pretext tasks show a network of one photograph, and what they ask: the first figure of docs/claims.md."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn import functional as F

from mirada.data.decode import decode, to_canvas
from mirada.data.samples import Samples
from mirada.inspect.pictures import Picture, array
from mirada.objectives.colorization import SRGB_TO_XYZ, WHITE, lab
from mirada.objectives.jigsaw import orders
from mirada.objectives.relative_position import SIDES
from mirada.objectives.table import OBJECTIVES

SIDE, STRIDE = 224, 16
SQUARE, GAP, WORDS, TOP = 2.7, 0.15, 2.55, 0.3  # inches: of a picture, between pictures, of the words, of the heading


class Shape:
    """As much of a backbone as an objective asks for to make its views."""

    dim, stem_dim, stride, drops_tokens = 8, 8, STRIDE, False


class Sheet:
    """A figure on which squares are placed, all in inches from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Picture(figsize=(width, height))

    def square(self, left: float, top: float, side: float) -> Axes:
        place = (left / self.width, 1 - (top + side) / self.height, side / self.width, side / self.height)
        axes = self.figure.add_axes(place)
        axes.set(xticks=[], yticks=[])
        return axes

    def grid(self, left: float, top: float, count: int, gap: float = 0.04) -> list[Axes]:
        """Count by count small squares in one of full size, row by row."""
        side = (SQUARE - gap * (count - 1)) / count
        return [self.square(left + column * (side + gap), top + row * (side + gap), side)
                for row in range(count) for column in range(count)]  # fmt: skip

    def text(self, left: float, top: float, words: str, **style: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, words, va="top", **style)


def tasks_figure(photograph: Path) -> Picture:
    """A row for each task: what the network is shown, what it is to answer, and the question in words."""
    canvas, aspect = to_canvas(decode(photograph.read_bytes()), SIDE)
    half = torch.full((3,), 0.5)
    sheet = Sheet(2 * SQUARE + 4 * GAP + WORDS, TOP + len(TASKS) * (SQUARE + GAP))
    left, right = GAP, 2 * GAP + SQUARE
    for where, title in ((left, "shown"), (right, "asked")):
        sheet.text(where + SQUARE / 2, 0.06, title, fontsize=12, fontweight="bold", ha="center")
    for row, (name, draw, question, seed, options) in enumerate(TASKS):
        samples = Samples(canvas[None], torch.tensor([aspect]), torch.tensor([-1]), size=(SIDE, SIDE), seed=seed,
                          mean=half, std=half)  # fmt: skip
        torch.manual_seed(seed)
        views = OBJECTIVES[name](Shape(), augment="none", **options).views(samples)
        top = TOP + row * (SQUARE + GAP)
        draw(sheet, left, right, top, views, samples)
        sheet.text(right + SQUARE + 1.5 * GAP, top + 0.05, name.replace("_", " "), fontsize=12, fontweight="bold")
        sheet.text(right + SQUARE + 1.5 * GAP, top + 0.35, question, fontsize=10, linespacing=1.4)
    return sheet.figure


def show(axes: Axes, image: Tensor, mark: object = "") -> None:
    """Colours (3, H, W) in 0..1, with a mark in the corner."""
    axes.imshow(array(image.clamp(0, 1).permute(1, 2, 0)))
    frame(axes, "none")
    if mark != "":
        axes.text(0.04, 0.96, str(mark), transform=axes.transAxes, ha="left", va="top", fontsize=10,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.8, "alpha": 0.9})  # fmt: skip


def frame(axes: Axes, colour: str, width: float = 1) -> None:
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=width)


def rotation(sheet: Sheet, left: float, right: float, top: float, views: dict[str, Tensor], samples: Samples) -> None:
    shown, label = samples.pixels(views["image"])[0], int(views["label"])
    show(sheet.square(left, top, SQUARE), shown)
    for turns, axes in enumerate(sheet.grid(right, top, 2, 0.08)):
        show(axes, torch.rot90(shown, turns - label, (1, 2)), f"{90 * turns}°")
        if turns == label:
            frame(axes, "C3", 4)


def jigsaw(sheet: Sheet, left: float, right: float, top: float, views: dict[str, Tensor], samples: Samples) -> None:
    del samples
    tiles = views["tiles"] / 4 + 0.5  # each has zero mean and unit deviation
    order = orders(100)[int(views["label"])].tolist()
    for place, axes in enumerate(sheet.grid(left, top, 3)):
        show(axes, tiles[place], place + 1)
    for place, axes in enumerate(sheet.grid(right, top, 3)):
        show(axes, tiles[order.index(place)], order.index(place) + 1)


def relative_position(
    sheet: Sheet, left: float, right: float, top: float, views: dict[str, Tensor], samples: Samples
) -> None:
    del samples
    tiles, label = views["image"] / 4 + 0.5, int(views["label"])
    side = (SQUARE - 0.04) / 2
    for place, mark in enumerate(("a tile", "its neighbour")):
        show(sheet.square(left + place * (side + 0.04), top + side / 2, side), tiles[place], mark)
    for cell, axes in enumerate(sheet.grid(right, top, 3)):
        down, along = cell // 3 - 1, cell % 3 - 1
        if (down, along) == (0, 0):
            show(axes, tiles[0])
        elif SIDES[label] == (down, along):
            show(axes, tiles[1])
            frame(axes, "C3", 4)
        else:
            frame(axes, "lightgrey")


def colorization(
    sheet: Sheet, left: float, right: float, top: float, views: dict[str, Tensor], samples: Samples
) -> None:
    show(sheet.square(left, top, SQUARE), samples.pixels(views["image"])[0])
    coarse = F.avg_pool2d(views["ab"], STRIDE)
    colours = srgb(torch.cat([torch.full_like(coarse[:, :1], 65.0), coarse], 1))
    show(sheet.square(right, top, SQUARE), F.interpolate(colours, scale_factor=STRIDE)[0])


TASKS: list[tuple[str, Any, str, int, dict[str, Any]]] = [
    ("rotation", rotation, "By how much was it turned?\nFour answers; framed, the right one.\n\n"
     "arXiv:1803.07728", 1, {}),
    ("jigsaw", jigsaw, "In which order do the tiles come?\nOne of 100; right, put together.\nColours are evened out "
     "tile by tile,\nso that they do not tell.\n\narXiv:1603.09246", 3, {"grey": 0.0}),
    ("relative_position", relative_position, "On which side is the neighbour?\nEight answers; framed, the right\none."
     " The gap between the tiles\nkeeps edges from telling.\n\narXiv:1505.05192", 6, {"grey": 0.0}),
    ("colorization", colorization, "Which colour has each patch?\nOne of 313 bins, for each patch;\nshown at one"
     " lightness.\n\narXiv:1603.08511", 0, {}),
]  # fmt: skip


def srgb(colours: Tensor) -> Tensor:
    """The inverse of `lab`, (B, 3, H, W), cut to what a screen can show."""
    light, a, b = colours.unbind(1)
    y = (light + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    matrix = (torch.tensor(SRGB_TO_XYZ) / torch.tensor(WHITE)[:, None]).inverse()
    linear = torch.einsum("ij,bjhw->bihw", matrix, xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


assert float((srgb(lab(sample := torch.rand(1, 3, 8, 8))) - sample).abs().max()) < 1e-3
