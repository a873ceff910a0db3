"""Augmentation on whole batches of decoded images: geometry as one resampling, then colour, then erasing.

An image is kept as a square canvas of uint8 pixels into which it was squashed, beside its true aspect ratio (width
over height). Every crop, shift, zoom and mirror image is a box of that canvas, resampled with a triangle filter.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mirada.data.colour import Jitter, blur, distort_colours, solarise
from mirada.data.randaugment import randaugment
from mirada.errors import MiradaError

__all__ = ["AUGMENTATIONS", "Augmentation", "augmentation", "draw_boxes", "erase", "resample", "resample_bytes"]


Crop = Literal["shift", "zoom", "whole"]


@dataclass(frozen=True)
class Augmentation:
    """What happens to an image before the network sees it. Equal augmentations of one batch are computed once.

    Attributes:
        crop: "shift" moves the picture by up to `shift` of its side and mirrors in what is missing (Krizhevsky 2012;
            right when the object fills the picture); "zoom" cuts a random box of `scale` of the area and `ratio`
            (Szegedy et al. 2015, arXiv:1409.4842; right for photographs); "whole" takes everything.
        flip: mirror half of the images left to right.
        operations, magnitude: RandAugment's N and M in 0..10 (Cubuk et al. 2019, arXiv:1909.13719); N = 0 is off.
        jitter, jitter_chance: largest change of brightness, contrast, saturation and hue, and the share of images that
            it comes to; see `mirada.data.colour`.
        grey, blur, solarise: shares of images that lose their colour, their sharpness, or have their bright parts
            inverted.
        erasing: probability of painting a random box grey (Zhong et al. 2017, arXiv:1708.04896).
    """

    crop: Crop = "shift"
    shift: float = 0.125
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    operations: int = 0
    magnitude: float = 9.0
    jitter: Jitter | None = None
    jitter_chance: float = 0.8
    grey: float = 0.0
    blur: float = 0.0
    solarise: float = 0.0
    erasing: float = 0.0

    def __post_init__(self) -> None:
        def numbers(value: Any, count: int) -> bool:
            return isinstance(value, tuple) and len(value) == count and all(isinstance(v, (int, float)) for v in value)

        shares = ("jitter_chance", "grey", "blur", "solarise", "erasing")
        rules = {
            "crop": (self.crop in get_args(Crop), f"{', '.join(get_args(Crop)[:-1])} or {get_args(Crop)[-1]}"),
            "scale": (numbers(self.scale, 2) and 0 < self.scale[0] <= self.scale[1] <= 1, "two shares, in order"),
            "ratio": (numbers(self.ratio, 2) and 0 < self.ratio[0] <= self.ratio[1], "two numbers above 0"),
            "shift": (numbers((self.shift,), 1) and 0 <= self.shift <= 1, "a share of the side, from 0 to 1"),
            "magnitude": (numbers((self.magnitude,), 1) and 0 <= self.magnitude <= 10, "a number from 0 to 10"),
            "jitter": (self.jitter is None or numbers(self.jitter, 4), "four numbers"),
            **{name: (numbers((getattr(self, name),), 1) and 0 <= getattr(self, name) <= 1, "a share from 0 to 1")
               for name in shares},
            "operations": (isinstance(self.operations, int) and self.operations >= 0, "a whole number, 0 or more"),
        }  # fmt: skip
        for name, (fine, wanted) in rules.items():
            if not fine:
                raise MiradaError(f"The augmentation option {name} is {getattr(self, name)!r}, and should be {wanted}.")

    def __call__(self, canvases: Tensor, aspect: Tensor, size: tuple[int, int], generator: Generator) -> Tensor:
        """uint8 canvases (B, C, S, S) and aspects (B,) to float32 pixels (B, C, *size) in 0..255."""
        boxes = draw_boxes(self, aspect, canvases.shape[-1], size, generator)
        pixels = resample(canvases, boxes, size)
        if self.operations:
            pixels = randaugment(pixels, self.operations, self.magnitude, generator)
        if self.jitter is not None or self.grey:
            pixels = distort_colours(pixels, self.jitter, self.jitter_chance, self.grey, generator)
        if self.blur:
            pixels = blur(pixels, self.blur, generator)
        if self.solarise:
            pixels = solarise(pixels, self.solarise, generator)
        return erase(pixels, self.erasing, generator) if self.erasing else pixels


AUGMENTATIONS = {
    "none": Augmentation("whole", flip=False),
    "light": Augmentation("shift"),
    "zoom": Augmentation("zoom"),
    "strong": Augmentation("zoom", operations=2, erasing=0.25),
    # Two views of one image: SimCLR's (arXiv:2002.05709, appendix A), and DINO's two large ones and its small ones
    # (arXiv:2104.14294, section 3.2, with BYOL's colours, arXiv:2006.07733, table 6).
    "simclr": Augmentation("zoom", scale=(0.08, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), grey=0.2, blur=0.5),
    "dino": Augmentation("zoom", scale=(0.4, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, blur=1.0),
    "dino-second": Augmentation(
        "zoom", scale=(0.4, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, blur=0.1, solarise=0.2
    ),
    "dino-small": Augmentation("zoom", scale=(0.05, 0.4), jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, blur=0.5),
}


def augmentation(setting: "str | dict[str, Any] | Augmentation") -> Augmentation:
    """A name of the table, or a dict of options with an optional `base` name to start from."""
    if isinstance(setting, Augmentation):
        return setting
    options = {"base": setting} if isinstance(setting, str) else dict(setting)
    base = options.pop("base", "light")
    if base not in AUGMENTATIONS:
        raise MiradaError(f"There is no augmentation {base!r}: choose one of {', '.join(AUGMENTATIONS)}.")
    known = Augmentation.__dataclass_fields__
    if unknown := [key for key in options if key not in known]:
        raise MiradaError(f"There is no augmentation option {unknown[0]!r}: choose among {', '.join(known)}.")
    frozen: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return replace(AUGMENTATIONS[base], **frozen)


def draw_boxes(how: Augmentation, aspect: Tensor, side: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """Boxes (B, 4) as top, bottom, left, right in canvas pixels; left > right reads the box mirrored."""
    count = len(aspect)
    if how.crop == "zoom":
        centre_y, centre_x, height, width = _zoom(how, aspect, generator)
    else:
        # The largest box of the output's shape around the centre, in fractions of the picture's sides.
        wanted = size[1] / size[0]
        height, width = (aspect / wanted).clamp(max=1), (wanted / aspect).clamp(max=1)
        centre_y = centre_x = torch.full((count,), 0.5)
        if how.crop == "shift":
            offsets = 2 * torch.rand(2, count, generator=generator) - 1
            # Whole output pixels: a shift then copies pixels instead of blurring them.
            pixels = torch.tensor([[size[0]], [size[1]]])
            steps = (offsets * how.shift * pixels).round() / pixels
            centre_y, centre_x = centre_y + steps[0] * height, centre_x + steps[1] * width
    edges = [centre_y - height / 2, centre_y + height / 2, centre_x - width / 2, centre_x + width / 2]
    boxes = torch.stack(edges, 1) * side
    if how.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        boxes = torch.where(mirrored[:, None], boxes[:, [0, 1, 3, 2]], boxes)
    return boxes


def _zoom(how: Augmentation, aspect: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres and sides of random boxes, as fractions of the picture's height and width."""
    area, shape, y, x = torch.rand(4, len(aspect), generator=generator)
    area = how.scale[0] + (how.scale[1] - how.scale[0]) * area
    low, high = math.log(how.ratio[0]), math.log(how.ratio[1])
    shape = (low + (high - low) * shape).exp()  # width over height, in true pixels
    height, width = (area * aspect / shape).sqrt().clamp(max=1), (area * shape / aspect).sqrt().clamp(max=1)
    # What the picture's edge cut off one side may leave a box longer than wanted.
    height, width = (torch.minimum(height, width * aspect / how.ratio[0]),
                     torch.minimum(width, height * how.ratio[1] / aspect))  # fmt: skip
    return height / 2 + (1 - height) * y, width / 2 + (1 - width) * x, height, width


def resample(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Read boxes (B, 4) out of images (B, C, H, W) at `size`: float32 (B, C, *size) in the images' own units.

    Separable, so each image costs two small matrix products. Outside of the image its mirror image continues. Bytes on
    a CPU go through vectorised kernels instead, unless they are so few that calling those costs more.
    """
    if images.dtype == torch.uint8 and images.device.type == "cpu" and size[0] * size[1] > 48**2:
        return resample_bytes(images, boxes, size).float()
    boxes = boxes.to(images.device)
    rows = _weights(boxes[:, 0], boxes[:, 1], size[0], images.shape[-2])
    columns = _weights(boxes[:, 2], boxes[:, 3], size[1], images.shape[-1])
    return rows[:, None] @ images.float() @ columns[:, None].mT


def resample_bytes(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`resample` of uint8 images, box by box, to uint8: 6 to 12 times as fast on one core, for 128 to 224 pixels.

    The edges of the boxes are rounded to whole pixels, and a box is cut out before it is resampled: as torchvision's
    RandomResizedCrop does it, the filter sees nothing of what lies outside.
    """
    resampled = torch.empty(len(images), images.shape[1], *size, dtype=torch.uint8)
    for image, box, result in zip(images, boxes.round().long().tolist(), resampled, strict=True):
        top, bottom, left, right = box
        part = _cut(_cut(image, 1, top, bottom), 2, min(left, right), max(left, right))
        if part.shape[1:] != size:
            part = F.interpolate(part[None], size, mode="bilinear", antialias=True)[0]
        result.copy_(part if left <= right else part.flip(2))
    return resampled


def _cut(image: Tensor, axis: int, start: int, end: int) -> Tensor:
    """Pixels start to end along one axis, one at least; outside of the image its mirror image continues."""
    end, side = max(end, start + 1), image.shape[axis]
    if start >= 0 and end <= side:
        return image.narrow(axis, start, end - start)
    places = torch.arange(start, end)
    places = torch.where(places < 0, -1 - places, places)
    return image.index_select(axis, torch.minimum(places, 2 * side - 1 - places))


def _weights(start: Tensor, end: Tensor, size: int, source: int) -> Tensor:
    """Rows (B, size, source) of a triangle filter as wide as an output pixel, never narrower than an input pixel."""
    step = ((end - start) / size)[:, None, None]
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * step
    centre = source - (source - centre.abs()).abs()
    distance = (centre - torch.arange(source, device=start.device) - 0.5).abs()
    weights = (1 - distance / step.abs().clamp(min=1)).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def erase(pixels: Tensor, probability: float, generator: Generator) -> Tensor:
    """Paint one random box of 2 to 33% of the area with the image's mean colour, in a share of the images."""
    count, _, height, width = pixels.shape
    area, shape, y, x, chance = torch.rand(5, count, generator=generator)
    area = 0.02 + 0.31 * area
    shape = (math.log(0.3) + (math.log(3.3) - math.log(0.3)) * shape).exp()
    tall, wide = (area / shape).sqrt().clamp(max=1), (area * shape).sqrt().clamp(max=1)
    top, left = (1 - tall) * y, (1 - wide) * x
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    box = inside_rows[:, None, :, None] & inside_columns[:, None, None, :] & (chance < probability)[:, None, None, None]
    return torch.where(box.to(pixels.device), pixels.mean((2, 3), keepdim=True), pixels)
