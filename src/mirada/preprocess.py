"""What a checkpoint expects of its pixels, as data, stored with it."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mirada.errors import MiradaError

__all__ = ["Interpolation", "Preprocess", "Resize"]

Resize = Literal["squash", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]


@dataclass(frozen=True)
class Preprocess:
    """Image to normalised tensor. Sizes round as torchvision and timm do, so published scores can be reached.

    Attributes:
        size: height and width the model sees, in pixels.
        resize: "squash" ignores the aspect ratio; "crop" covers `size` and cuts the centre out; "pad" fits into `size`
            and fills with the mean colour.
        crop_fraction: resize as if for size / crop_fraction, then cut the centre of `size` out.
        interpolation: of the resize; antialiased.
        mean, std: per channel, for pixels in 0..1. ImageNet's unless said otherwise.
    """

    size: tuple[int, int]
    resize: Resize = "crop"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        _require(len(self.size) == 2 and min(self.size) >= 1, "size", self.size, "height and width in pixels")
        _require(self.resize in get_args(Resize), "resize", self.resize, "one of squash, crop, pad")
        _require(0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "above 0, at most 1")
        names = get_args(Interpolation)
        _require(self.interpolation in names, "interpolation", self.interpolation, f"one of {', '.join(names)}")
        _require(len(self.mean) == 3, "mean", self.mean, "three numbers, for red, green, blue")
        _require(len(self.std) == 3 and min(self.std) > 0, "std", self.std, "three numbers above 0")

    def __call__(self, image: Image.Image) -> Tensor:
        """Float32 (3, H, W), normalised."""
        return self.normalise(self.pixels(image))

    def pixels(self, image: Image.Image) -> Tensor:
        """uint8 (3, H, W): resized and cut, not yet normalised."""
        height, width = self.size
        if image.mode != "RGB":
            image = image.convert("RGB")
        if self.resize == "crop":
            image = _without_far_ends(image)
        target = self._resized(image.width, image.height)
        resized = image.resize(target, Image.Resampling[self.interpolation.upper()])
        if target != (width, height):
            canvas = Image.new("RGB", (width, height), self._mean_colour())
            canvas.paste(resized, (-round((target[0] - width) / 2), -round((target[1] - height) / 2)))
            resized = canvas
        return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) to float32: (pixels / 255 - mean) / std, on the device of `pixels`."""
        mean, std = (torch.tensor(value, device=pixels.device)[:, None, None] for value in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)

    def reads_at_least(self) -> int:
        """For `decode(at_least=...)`: twice the side, where a reduced JPEG can hardly be told from a full one."""
        return 2 * max(self._box())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`. Raises `MiradaError` for a key that is unknown or missing, or a bad value."""
        known = {field.name for field in fields(cls)}
        problems = [f"unknown {key!r}" for key in sorted(values.keys() - known)]
        problems += [f"missing {key!r}" for key in sorted(known - values.keys())]
        if problems:
            raise MiradaError(f"Cannot read the preprocessing: {', '.join(problems)}; its keys are {sorted(known)}.")
        try:
            options: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(**options)
        except TypeError as error:
            raise MiradaError(f"Cannot read the preprocessing {values}: {error}.") from error

    def _box(self) -> tuple[int, int]:
        """Height and width before the centre is cut out."""
        return int(self.size[0] / self.crop_fraction), int(self.size[1] / self.crop_fraction)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height an image is resized to: the one side as the box, the other by the aspect ratio."""
        box_height, box_width = self._box()
        if self.resize == "squash":
            return box_width, box_height
        wider = width * box_height >= height * box_width  # than the box
        if wider == (self.resize == "crop"):
            return max(1, width * box_height // height), box_height
        return box_width, max(1, height * box_width // width)

    def _mean_colour(self) -> tuple[int, int, int]:
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue


def _without_far_ends(image: Image.Image, most: int = 64) -> Image.Image:
    """Cut images of a single hair's shape to 64:1, or covering the box with one would take gigabytes."""
    width, height = min(image.width, most * image.height), min(image.height, most * image.width)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise MiradaError(f"The preprocessing's {name} is {value!r}: it must be {wanted}.")
