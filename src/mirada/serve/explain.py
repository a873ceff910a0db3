"""Why a picture was found, and where the model looks in it, as small maps of numbers that a page can draw."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mirada.features import Layer, within
from mirada.inspect.look import MOST_BLOCKS, blocks
from mirada.inspect.words import vector_map
from mirada.model import Model
from mirada.modes import evaluating

__all__ = ["attention", "heat"]

Explanation = dict[str, Any]


def heat(model: Model, image: Image.Image, vector: NDArray[np.float32]) -> Explanation:
    """Cosines of every patch with a query, a unit vector (D,).

    `values` are rows from top to bottom, `box` is what the model saw of the picture: left, top, right and bottom as
    shares of its sides.
    """
    (found,) = vector_map(model, _images(model, image), torch.from_numpy(vector)[None])[0].cpu()
    return {"box": model.preprocess.seen(*image.size), "values": _rounded(found)}


@torch.no_grad()
def attention(model: Model, image: Image.Image, layer: int = -1) -> Explanation:
    """How much of its attention each patch gives to each, in the mean over the heads of one layer, counted from 0 or,
    if negative, from the end.

    `from[row][column]` are rows of shares, in millionths; on a grid of at most 16 blocks a side, each the mean over a
    few patches. `box` is where all blocks are, which may go over the edge of what was seen: patches need not divide
    into blocks. Of a model without attention `layers` is 0 and `from` is empty.
    """
    kept: list[Layer] = []
    with evaluating(model):
        model.backbone(_images(model, image), probe=kept.append)
    box = model.preprocess.seen(*image.size)
    if not kept:
        return {"box": box, "layers": 0, "layer": 0, "from": []}
    (number,) = within([layer], len(kept), "layer")
    grid, size = kept[number].grid, _block(kept[number])
    found = _between(kept[number], size).mul(1e6).round().int().tolist()
    left, top, right, bottom = box
    rows, columns = (-(-side // size) * size / side for side in grid)
    box = (left, top, left + (right - left) * columns, top + (bottom - top) * rows)
    return {"box": box, "layers": len(kept), "layer": number % len(kept), "from": found}


def _block(layer: Layer) -> int:
    """Patches along the side of a block."""
    return -(-max(layer.grid) // MOST_BLOCKS)


def _between(layer: Layer, size: int) -> Tensor:
    """(h, w, h, w): from each block of patches to each patch of each block, the mean over heads."""
    heads = layer.query.shape[1]
    total: Tensor | None = None
    for head in range(heads):
        matrix = layer.attention([head])[0, 0, layer.prefix :, layer.prefix :].view(*layer.grid, *layer.grid)
        small = blocks(blocks(matrix, size).permute(2, 3, 0, 1), size).permute(2, 3, 0, 1)
        total = small / heads if total is None else total + small / heads
    assert total is not None
    return total.cpu()


def _images(model: Model, image: Image.Image) -> Tensor:
    return model.preprocess(image)[None].to(model.device)


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in values.tolist()]
