"""What is known of a picture besides its vector: when and where it was taken, a thumbnail, a perceptual hash."""

import math
from datetime import datetime
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mirada.data.decode import decode, open_header

__all__ = ["THUMBNAIL", "Picture", "perceptual_hash", "picture", "thumbnail"]

THUMBNAIL = 256  # pixels of the longer side
CAMERA_FOLDER, PLACE_FOLDER = 0x8769, 0x8825  # EXIF's own sub-folders
TAKEN, CHANGED = 0x9003, 0x0132
GRID, KEPT = 32, 8


class Picture(NamedTuple):
    """All columns that come from a file's bytes."""

    taken: datetime | None
    latitude: float | None
    longitude: float | None
    camera: str | None
    width: int
    height: int
    phash: int
    thumbnail: bytes


def picture(data: bytes, at_least: int | None) -> tuple[Picture, Image.Image]:
    """What the bytes say, and the decoded image, of which a large JPEG keeps at least so many pixels a side.

    Raises `mirada.data.decode.UndecodableImage`.
    """
    image = decode(data, at_least=None if at_least is None else max(at_least, THUMBNAIL))
    exif, (width, height) = _exif(data, image)
    place = _folder(exif, PLACE_FOLDER)
    found = Picture(
        _taken(exif), _degrees(place, 1, 2, 90), _degrees(place, 3, 4, 180), _camera(exif), width, height,
        perceptual_hash(image), thumbnail(image),
    )  # fmt: skip
    return found, image


def perceptual_hash(image: Image.Image) -> int:
    """64 bits of the image's coarse structure, as a signed number; scaling, compression and brightness change few.

    The lowest 8x8 frequencies of a cosine transform of 32x32 grey pixels, each above or below their median (Zauner
    2010, "Implementation and benchmarking of perceptual image hash functions", section 3.2.1).
    """
    grey = np.asarray(image.convert("L").resize((GRID, GRID), Image.Resampling.BOX), np.float64)
    waves = np.cos(math.pi / GRID * np.outer(np.arange(1, KEPT + 1), np.arange(GRID) + 0.5))  # without the constant
    frequencies = (waves @ grey @ waves.T).reshape(-1)
    bits = frequencies > np.median(frequencies)
    return int.from_bytes(np.packbits(bits).tobytes(), "big", signed=True)


def thumbnail(image: Image.Image) -> bytes:
    """WebP, `THUMBNAIL` pixels along the longer side."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC, reducing_gap=1.0)
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()


def _exif(data: bytes, image: Image.Image) -> tuple[Any, tuple[int, int]]:
    """EXIF, None where it is broken, and the true width and height of the upright picture."""
    size = image.size
    try:
        opened = open_header(data)
        size = image.size if opened.format == "TIFF" else opened.size  # Pillow's sizes of TIFFs are upright already
        exif = opened.getexif()
        lies = opened.format != "TIFF" and exif.get(0x0112, 1) in (5, 6, 7, 8)  # on its side
        return exif, (size[1], size[0]) if lies else size
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return None, size


def _folder(exif: Any, number: int) -> Any:
    """A part of EXIF that lies elsewhere in the file; {} where the way there is broken."""
    try:
        return {} if exif is None else exif.get_ifd(number)
    except Exception:  # as above
        return {}


def _taken(exif: Any) -> datetime | None:
    if exif is None:
        return None
    for value in (_folder(exif, CAMERA_FOLDER).get(TAKEN), exif.get(CHANGED)):
        try:
            return datetime.strptime(str(value).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
        except ValueError:
            continue
    return None


def _degrees(place: Any, side: int, number: int, most: int) -> float | None:
    """Degrees, minutes and seconds as degrees, south and west below 0."""
    try:
        degrees, minutes, seconds = (float(part) for part in place[number])
        value = degrees + minutes / 60 + seconds / 3600
        value = -value if str(place[side]).upper()[:1] in ("S", "W") else value
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and abs(value) <= most else None


def _camera(exif: Any) -> str | None:
    if exif is None:
        return None
    make, model = (str(exif.get(tag) or "").strip("\0 ") for tag in (0x010F, 0x0110))
    name = model if model.startswith(make) else f"{make} {model}"
    return name.strip()[:100] or None
