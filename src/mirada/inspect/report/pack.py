"""Maps as text: a page has to hold millions of numbers in few megabytes.

A map is stretched from its own lowest to its highest value and cut into 256 steps, or 16 where there are thousands of
maps; the two ends go beside it, so that the page can say what a step means.
"""

import base64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirada.inspect.look import blocks

__all__ = ["fitting_block", "pack", "text_of"]

END = 65535  # a share s of attention is written as the whole number nearest END * sqrt(s): small ones keep their digits


def text_of(values: NDArray[Any]) -> str:
    """Bytes in base64, little-endian."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def fitting_block(count: int, grid: tuple[int, int], most: int) -> int:
    """The smallest side of blocks at which `count` maps of a grid have at most `most` values together."""
    for side in range(1, max(grid)):
        if count * -(-grid[0] // side) * -(-grid[1] // side) <= most:
            return side
    return max(grid)


def pack(maps: Tensor, bits: int = 8, block: int = 1) -> dict[str, Any]:
    """Maps (..., H, W) of numbers from 0 to 1, row by row, for `unpack` in page.js.

    Args:
        bits: 8, or 4, of which the first of two values is the lower half of a byte.
        block: patches on a side that are written as one, their mean.
    """
    maps = blocks(maps.float(), block)
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).double()
    low, high = flat.aminmax(dim=1, keepdim=True)
    steps = 2**bits - 1
    spread = high - low
    levels = torch.where(spread > 1e-3 * high, (flat - low) / spread.clamp(min=1e-30) * steps, 0.0)
    values = levels.round().to(torch.uint8).flatten().numpy()
    if bits == 4:
        values = np.append(values, np.zeros(len(values) % 2, np.uint8))
        values = values[::2] | values[1::2] << 4
    scale = torch.cat([low, high], 1).clamp(0, 1).sqrt().mul(END).round().numpy().astype(np.uint16)
    return {
        "height": maps.shape[-2], "width": maps.shape[-1], "bits": bits, "block": block, "count": len(flat),
        "values": text_of(values), "ends": text_of(scale),
    }  # fmt: skip
