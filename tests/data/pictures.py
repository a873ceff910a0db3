"""Small images and data sets, made on the spot."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(number: int = 0, size: tuple[int, int] = (8, 6)) -> bytes:
    """A PNG of one colour, another for each number."""
    return encoded(Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 128)))


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """Smooth, without symmetry: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x + 60], -1).astype(np.uint8))


def fill(folder: Path, files: dict[str, int | str | bytes]) -> Path:
    """Write files below a folder: a number becomes a picture, text and bytes are written as they are."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(picture(content) if isinstance(content, int) else content)
    return folder


def write_parquet(path: Path, columns: dict[str, list[Any]], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
