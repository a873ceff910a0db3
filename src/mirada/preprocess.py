"""What a checkpoint expects of its pixels, as data, stored with it."""

from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mirada.data.decode import as_seen
from mirada.errors import MiradaError

__all__ = ["Interpolation", "Preprocess", "Resampler", "Resize"]

Resize = Literal["squash", "crop", "pad", "none"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Resampler = Literal["pillow", "torch", "torch-float"]

MOST = 1 << 24  # pixels of a resized image that is yet to be cut; of a larger one only what is kept is made
TORCH_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}
REQUIRED = {"size", "resize", "interpolation", "mean", "std"}  # the other keys are younger than the oldest files


@dataclass(frozen=True)
class Preprocess:
    """Image to normalised tensor: to a grey level what the checkpoint's own library makes of the same RGB pixels.

    It starts from the picture as a person sees it, which is what `mirada.data.decode` gives: turned as its EXIF tag
    says, and with transparency on white. The published pipelines start from the pixels as they are stored: a photograph
    taken upright lies on its side for them, and what lies under transparency shows. Here, on purpose, it does not.

    Attributes:
        size: height and width the model sees, in pixels.
        resize: "squash" to `box` and ignore the aspect ratio; "crop" covers `box` (if it is square, the shorter side
            is the box's); "pad" fits into `box`; "none" leaves the picture as large as it is.
        box: height and width that `resize` aims for; `size` if None. The centre of `size` is then cut out, and what is
            smaller than `size` gets a border.
        interpolation: of the resize.
        resampler: who computes it. The libraries agree to a grey level on "bilinear", but "bicubic" overshoots, is cut
            off at black and white between its two passes, and they differ in which goes first, by up to 11 grey levels.
            "pillow", which has all interpolations; "torch" on bytes, as transformers does, or "torch-float".
        antialias: whether a pixel averages over all that shrinks into it. torch can also go without, as torchvision
            does with tensors if told to; Pillow cannot.
        halves: where the cut begins when as much cannot be left over on both sides: "even" rounds half a pixel to an
            even number, as torchvision does; "down" begins before it, as transformers does.
        fill: red, green and blue (0 to 255) of the border; the mean colour if None.
        mean, std: per channel, for pixels in 0..1. ImageNet's unless said otherwise.
    """

    size: tuple[int, int]
    resize: Resize = "crop"
    box: tuple[int, int] | None = None
    interpolation: Interpolation = "bicubic"
    resampler: Resampler = "pillow"
    antialias: bool = True
    halves: Literal["even", "down"] = "even"
    fill: tuple[int, int, int] | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        sides = "height and width in pixels"
        _require(_are_whole(self.size, 2, 1), "size", self.size, sides)
        _require(self.box is None or _are_whole(self.box, 2, 1), "box", self.box, sides)
        _require_one(self.resize, Resize, "resize")
        _require_one(self.interpolation, Interpolation, "interpolation")
        _require_one(self.resampler, Resampler, "resampler")
        able = self.resampler == "pillow" or self.interpolation in TORCH_MODES
        _require(able, "resampler", self.resampler, f"pillow for {self.interpolation} interpolation")
        smooth = self.antialias is True or (self.antialias is False and self.resampler != "pillow")
        _require(smooth, "antialias", self.antialias, "true, or false for a torch resampler")
        _require(self.halves in ("even", "down"), "halves", self.halves, "one of even, down")
        colour = self.fill is None or _are_whole(self.fill, 3, 0, 255)
        _require(colour, "fill", self.fill, "red, green and blue, from 0 to 255")
        _require(_are_numbers(self.mean), "mean", self.mean, "three numbers, for red, green, blue")
        _require(_are_numbers(self.std) and min(self.std) > 0, "std", self.std, "three numbers above 0")

    def __call__(self, image: Image.Image) -> Tensor:
        """Float32 (3, H, W), normalised."""
        return self.normalise(self.pixels(image))

    def pixels(self, image: Image.Image) -> Tensor:
        """uint8 (3, H, W): resized and cut, not yet normalised. Raises `UndecodableImage` for a broken file."""
        image = as_seen(image)
        height, width = self.size
        resized = self._resized(image.width, image.height)
        left, top = self._start(resized[0], width), self._start(resized[1], height)
        right, bottom = min(left + width, resized[0]), min(top + height, resized[1])
        made = self._scaled(image, resized, (max(left, 0), max(top, 0), right, bottom))
        if made.shape[1:] == self.size:
            return made
        canvas = torch.tensor(self._border(), dtype=torch.uint8)[:, None, None].repeat(1, height, width)
        canvas[:, max(-top, 0) : bottom - top, max(-left, 0) : right - left] = made
        return canvas

    def seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is seen of a picture so wide and high, as shares of its sides; below 0
        and above 1 where a border is added."""
        wide, high = self._resized(width, height)
        left, top = self._start(wide, self.size[1]), self._start(high, self.size[0])
        return left / wide, top / high, (left + self.size[1]) / wide, (top + self.size[0]) / high

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) to float32: (pixels / 255 - mean) / std, on the device of `pixels`."""
        mean, std = (torch.tensor(value, device=pixels.device)[:, None, None] for value in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def reads_at_least(self) -> int | None:
        """For `decode(at_least=...)`: twice the side, where a reduced JPEG can hardly be told from a full one.

        None, all of it, where single pixels of the file matter.
        """
        sampled = self.interpolation == "nearest" or not self.antialias
        return None if sampled or self.resize == "none" else 2 * max(self.box or self.size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`. Raises `MiradaError` for a key that is unknown or missing, or a bad value."""
        values = dict(values)
        fraction = values.pop("crop_fraction", None)  # of Mirada 0.1
        known = {field.name for field in fields(cls)}
        problems = [f"unknown {key!r}" for key in sorted(values.keys() - known)]
        problems += [f"missing {key!r}" for key in sorted(REQUIRED - values.keys())]
        if problems:
            raise MiradaError(f"Cannot read the preprocessing: {', '.join(problems)}; its keys are {sorted(known)}.")
        try:
            options: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            if fraction is not None:
                right = isinstance(fraction, (int, float)) and 0 < fraction <= 1
                _require(right, "crop_fraction", fraction, "above 0, at most 1")
                options["box"] = tuple(int(side / fraction) for side in options["size"])
            return cls(**options)
        except TypeError as error:
            raise MiradaError(f"Cannot read the preprocessing {values}: {error}.") from error

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height an image is resized to.

        To cover a square is torchvision's Resize(side), whose other side rounds down. Everything else that keeps the
        aspect ratio is timm's and open_clip's own, and rounds to the nearest.
        """
        box_height, box_width = self.box or self.size
        if self.resize == "none":
            return width, height
        if self.resize == "squash":
            return box_width, box_height
        if self.resize == "crop" and box_height == box_width:
            shorter = min(width, height)
            return width * box_width // shorter, height * box_width // shorter
        ratios = width / box_width, height / box_height
        ratio = min(ratios) if self.resize == "crop" else max(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _start(self, there: int, wanted: int) -> int:
        """Where the wanted pixels begin among those that are there; below 0 if there are too few."""
        if there < wanted:
            return -((wanted - there) // 2)
        return (there - wanted) // 2 if self.halves == "down" else round((there - wanted) / 2)

    def _scaled(self, image: Image.Image, to: tuple[int, int], kept: tuple[int, int, int, int]) -> Tensor:
        """uint8 (3, h, w): the part (left, top, right, bottom) of the image as wide and high as `to`."""
        left, top, right, bottom = kept
        pillow = Image.Resampling[self.interpolation.upper()]
        if to == image.size:
            image = image.crop(kept)
        elif to[0] * to[1] > max(MOST, image.width * image.height):  # a hair; all of it would take gigabytes
            x, y = image.width / to[0], image.height / to[1]
            image = image.resize((right - left, image.height), pillow, (left * x, 0, right * x, image.height))
            image = image.resize((right - left, bottom - top), pillow, (0, top * y, image.width, bottom * y))
        elif self.resampler == "pillow":
            image = image.resize(to, pillow).crop(kept)
        else:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # the channels stay last in memory
            options = {} if self.interpolation == "nearest" else {"align_corners": False, "antialias": self.antialias}
            mode = TORCH_MODES[self.interpolation]
            if self.resampler == "torch":
                pixels = F.interpolate(pixels, (to[1], to[0]), mode=mode, **options)
            else:
                pixels = F.interpolate(pixels.float(), (to[1], to[0]), mode=mode, **options)
                pixels = pixels.clamp_(0, 255).round_().byte()
            return pixels[0, :, top:bottom, left:right].contiguous()
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())

    def _border(self) -> tuple[int, int, int]:
        if self.fill is not None:
            return self.fill
        red, green, blue = (min(max(round(255 * value), 0), 255) for value in self.mean)
        return red, green, blue


def _are_whole(values: Any, count: int, low: int, high: int = 1 << 20) -> bool:
    listed = isinstance(values, (tuple, list)) and len(values) == count
    return listed and all(isinstance(value, int) and low <= value <= high for value in values)


def _are_numbers(values: Any) -> bool:
    listed = isinstance(values, (tuple, list)) and len(values) == 3
    return listed and all(isinstance(value, (int, float)) and isfinite(value) for value in values)


def _require_one(value: object, choices: Any, name: str) -> None:
    _require(value in get_args(choices), name, value, f"one of {', '.join(get_args(choices))}")


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise MiradaError(f"The preprocessing's {name} is {value!r}: it must be {wanted}.")
