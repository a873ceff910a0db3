"""Where an image is unusual, as a picture."""

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

__all__ = ["overlay"]

SMALLEST = 224  # pixels of the shorter side: smaller pictures are enlarged by a whole number
BRIGHTEST = 2.0  # the score whose colour is the last of the scale


def overlay(pixels: Tensor, heat: Tensor) -> Image.Image:
    """The picture, uint8 (3, height, width), and beside it itself under the heat map (height, width), where 1 is what
    normal images hardly reach.

    One scale for all pictures: nothing shows below three quarters of that, red is about one, light yellow two or more.
    """
    times = max(1, -(-SMALLEST // min(pixels.shape[1:])))
    large = pixels.repeat_interleave(times, 1).repeat_interleave(times, 2).permute(1, 2, 0).float().numpy()
    values = torch.nn.functional.interpolate(heat[None, None], scale_factor=times, mode="bilinear")[0, 0].numpy()
    colours = colormaps["inferno"](np.clip(values / BRIGHTEST, 0, 1))[..., :3] * 255
    strength = 0.75 * np.clip(2 * values - 1.5, 0, 1)[..., None]
    grey = large.mean(2, keepdims=True) * 0.6 + large * 0.4
    mixed = (1 - strength) * grey + strength * colours
    both = np.concatenate([large, np.full((len(large), 4, 3), 255.0), mixed], 1)
    return Image.fromarray(both.round().clip(0, 255).astype(np.uint8))
