"""What a run has to know of its images before it starts: how large they are, their colours, and some of them."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.data.decode import decode
from mirada.data.images import Images
from mirada.data.sources import Source
from mirada.errors import MiradaError

__all__ = ["canvas_side", "colour_statistics", "some_images"]

AT_ONCE = 64  # images in float64: all of them may be gigabytes


def canvas_side(source: Source, image_size: int) -> int:
    """How large images are kept: 1.25 times what the model sees, or less when the first of them are smaller."""
    wanted = round(1.25 * image_size)
    largest = 0
    for index in range(min(32, len(source))):
        try:
            largest = max(largest, *decode(source.read(index)).size)
        except (MiradaError, OSError):
            continue  # counted and reported when the images are read
    return min(wanted, max(largest, image_size)) if largest else wanted


def some_images(images: Images, side: int | None = None, most: int = 1024) -> tuple[Tensor, Tensor]:
    """Up to `most` images, spread evenly over the data, uint8 (B, C, S, S), and their labels (B,), -1 for none. They
    are resized to `side` if it is given."""
    spread = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).astype(np.int64))
    pixels, _, places = images.get(spread)
    if side is not None and len(pixels) and pixels.shape[-1] != side:
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return pixels, torch.from_numpy(images.labels[places])


def colour_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1."""
    pixels = some_images(images)[0]
    count = pixels.numel() / pixels.shape[1]
    parts = [part.double().sum((0, 2, 3)) for part in torch.split(pixels, AT_ONCE)]
    mean = torch.stack(parts).sum(0) / count
    squares = [(part.double() - mean[:, None, None]).square().sum((0, 2, 3))
               for part in torch.split(pixels, AT_ONCE)]  # fmt: skip
    std = (torch.stack(squares).sum(0) / (count - 1)).sqrt()
    mean, std = mean / 255, (std / 255).clamp(min=1e-3)
    return tuple(round(float(v), 4) for v in mean), tuple(round(float(v), 4) for v in std)
