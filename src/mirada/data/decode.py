"""Encoded bytes of any common image format to upright RGB, or a reason why not."""

import struct
from functools import cache
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mirada.errors import MiradaError

__all__ = [
    "IMAGE_SUFFIXES", "MAX_PIXELS", "UndecodableImage", "as_seen", "decode", "decode_alpha", "decode_mask",
    "open_header", "readable_formats", "to_canvas",
]  # fmt: skip

MAX_PIXELS = 178_956_970  # 512 MiB as RGB; more is an attack or a mistake. Pillow's own limit for an error.

# What is tried, by magic number. Formats that run another program (EPS) or have no magic number (TGA) are left out.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF", "BMP", "TIFF", "PPM", "JPEG2000", "QOI", "ICO", "PCX")
IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".avif", ".heic", ".heif", ".hif", ".bmp",
    ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".qoi", ".ico", ".pcx",
}  # fmt: skip
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

UPRIGHT = {  # EXIF orientation -> what turns the pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UndecodableImage(MiradaError):  # noqa: N818  # it is the image that is at fault
    """These bytes are no usable image; `reason` says why, in a few words, for the list of skipped files."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes, *, at_least: int | None = None) -> Image.Image:
    """The image as a person sees it, RGB: rotated as EXIF says, transparency on white, the first frame of several.

    With `at_least`, a JPEG larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, several times faster; both
    sides keep at least that many pixels (or all they have).

    Raises:
        UndecodableImage: empty, cut short, broken, too large, or no image at all.
    """
    return as_seen(_open(data), at_least=at_least)


def as_seen(image: Image.Image, *, at_least: int | None = None) -> Image.Image:
    """An image that Pillow has opened, as `decode` gives it. Raises `UndecodableImage` for a broken file."""
    try:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        return _upright(_to_rgb(image), _orientation(image))
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise UndecodableImage(f"broken {image.format or 'image'} file: {_one_line(error)}") from error


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Where the object is, bool (height, width), upright, from an encoded mask.

    Where there is transparency, the object is what is at least half opaque. In any other image it is every pixel that
    is not zero (not black; of a palette, not its first colour); in a JPEG, which does not keep zeros, every pixel
    that is at least half bright. Raises `UndecodableImage` as `decode` does.
    """
    alpha = decode_alpha(data)
    if alpha is not None:
        return alpha
    image = _open(data)
    try:
        values = np.asarray(_upright(image.convert("RGB") if image.has_transparency_data else image,
                                     _orientation(image)))  # fmt: skip
    except Exception as error:
        raise UndecodableImage(f"broken {image.format} file: {_one_line(error)}") from error
    there: NDArray[np.bool_] = values >= 128 if image.format == "JPEG" else values != 0
    return there if there.ndim == 2 else np.asarray(there.any(2))


def decode_alpha(data: bytes) -> NDArray[np.bool_] | None:
    """Where an image is at least half opaque, bool (height, width), upright; None if it is opaque everywhere."""
    image = _open(data)
    if not image.has_transparency_data:
        return None
    try:
        alpha = np.asarray(_upright(image.convert("RGBA").getchannel("A"), _orientation(image)))
    except Exception as error:
        raise UndecodableImage(f"broken {image.format} file: {_one_line(error)}") from error
    return None if alpha.min() == 255 else alpha >= 128


def to_canvas(image: Image.Image, side: int) -> tuple[Tensor, float]:
    """Squash into a square: uint8 (3, side, side), and the true width / height. Exact when it has that size already.

    PyTorch's kernel filters as Pillow's does, to a grey level, in a third of the time.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # (3, H, W), with the channels last in memory
    if image.size != (side, side):
        pixels = F.interpolate(pixels[None], (side, side), mode="bicubic", antialias=True)[0]
    return pixels.contiguous(), image.width / image.height


@cache
def readable_formats() -> list[str]:
    """Those of `FORMATS` that can be read here. Registers Pillow's plugins, and pillow-heif's if it is there, once."""
    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(data: bytes) -> Image.Image:
    """Read the header only, and look at the size."""
    image = open_header(data)
    if image.width * image.height > MAX_PIXELS:
        raise UndecodableImage(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS} allowed")
    if image.width == 0 or image.height == 0:
        raise UndecodableImage(f"it has no pixels ({image.width}x{image.height})")
    return image


def open_header(data: bytes) -> Image.Image:
    """Read the header only. `Image.open` would do, if it did not warn by itself, through process-wide filters, of
    large images that are still allowed."""
    if not data:
        raise UndecodableImage("the file is empty")
    reason = ""
    for name in readable_formats():
        factory, accept = Image.OPEN[name]
        try:
            if not accept or accept(data[:16]) is True:
                return factory(BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # Pillow's way to say: not this format
            if name != "PPM":  # whose magic number is short enough for text to begin with
                reason = reason or f"broken {name} header: {_one_line(error)}"  # AVIF's is some HEIC files', too
        except Exception as error:
            raise UndecodableImage(f"broken {name} header: {_one_line(error)}") from error
    raise UndecodableImage(_why_unknown(data) or reason or "not an image, or of a format that Mirada does not read")


def _why_unknown(data: bytes) -> str:
    """What would have to be installed, or nothing."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and "HEIF" not in readable_formats():
        return "HEIC needs the extra mirada[heif]: pip install 'mirada[heif]'"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis") and "AVIF" not in readable_formats():
        return "AVIF needs Pillow 11.3 or later: pip install -U pillow"
    return ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """What is still to be done: Pillow turns a TIFF itself when it loads it."""
    image.load()
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    if orientation not in UPRIGHT:
        return image
    turned = image.transpose(UPRIGHT[orientation])
    turned.info.clear()  # which says that it is still to be turned
    return turned


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(transparent, mask=transparent.getchannel("A"))
    return white


def _deep_grey(image: Image.Image) -> Image.Image:
    """More than 8 bits to 8. Whole numbers within 16 bits keep their meaning (65535 is white); others have no agreed
    white and are stretched from their darkest to their brightest; what is no number is as dark as the darkest."""
    values = np.asarray(image).astype(np.float32)
    known = values[np.isfinite(values)]
    if not len(known):
        raise ValueError("no pixel is a number")
    low, high = known.min(), known.max()
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0, 65535
    return Image.fromarray(((values - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8))
