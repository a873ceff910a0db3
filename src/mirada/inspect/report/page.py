"""The page of `mirada inspect`: one file that holds its pictures, numbers, style and script.

Everything is computed before and packed here; page.html, page.css and page.js beside this file lay it out. The page
makes no request of any kind (its own Content-Security-Policy forbids it), so it can be mailed, archived and opened from
a disk. File names and words are untrusted: they reach the page only through autoescaping, and its script only as text.
"""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from mirada.inspect.look import LayerLook, Look
from mirada.inspect.report.pack import fitting_block, pack, text_of
from mirada.saving import write_whole

__all__ = ["Seen", "Subject", "write_page"]

MOST_VALUES = 800_000  # bytes of attention averaged over heads, of one image and model
MOST_HALVES = 3_000_000  # half bytes of the attention of single heads, of all images and models together
THUMBNAIL = 144  # pixels of the longer side


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that is looked into, with what does not depend on an image."""

    name: str  # what it was asked for by
    facts: dict[str, str]
    positions: Tensor | None = None  # (H, W, H, W) cosines
    filters: Tensor | None = None  # (count, 3, p, p)
    instead: str = ""  # what to look at where there is no attention


@dataclass(frozen=True, eq=False)
class Seen:
    """An image, and what each model sees in it."""

    path: str
    pictures: tuple[Image.Image, ...]  # for each model, the part of the image that it sees, as sharp as there is
    looks: tuple[Look, ...]
    fits: tuple[str, ...]  # how it became what each model sees


def write_page(
    path: Path, *, title: str, command: str, subjects: Sequence[Subject], images: Sequence[Seen],
    notes: Sequence[str] = (), layer: int | None = None, head: int | None = None,
) -> Path:  # fmt: skip
    """Write the page to `path`, whole or not at all, and return it.

    Args:
        notes: what a reader has to know, such as files that were left out.
        layer, head: what the page opens with, counted from 0; the last layer and all heads if None.
    """
    most = MOST_HALVES // (len(images) * len(subjects))
    data = {
        "palette": text_of((matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)),
        "layer": layer, "head": head,
        "models": [model_data(subject) for subject in subjects],
        "images": [image_data(seen, most) for seen in images],
    }  # fmt: skip
    text = environment().get_template("page.html").render(
        title=title, command=command, subjects=subjects, images=images, notes=notes, data=data, show=contents(images),
        style=source("page.css"), script=source("page.js"),
    )  # fmt: skip
    write_whole(path, text)
    return path


def environment() -> Environment:
    """Jinja with escaping."""
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    jinja.filters.update(basename=os.path.basename, thumbnail=thumbnail)
    return jinja


def source(name: str) -> str:
    """A file beside this one."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def contents(images: Sequence[Seen]) -> dict[str, bool]:
    """Which parts the page has."""
    looks = [look for seen in images for look in seen.looks]
    return {
        "attention": any(look.layers for look in looks), "words": any(look.words for look in looks),
        "objects": any(look.objects for look in looks),
    }  # fmt: skip


def model_data(subject: Subject) -> dict[str, Any]:
    filters = None
    if subject.filters is not None:
        low, high = subject.filters.amin((1, 2, 3), keepdim=True), subject.filters.amax((1, 2, 3), keepdim=True)
        filters = colours_data(((subject.filters - low) / (high - low).clamp(min=1e-12)).permute(0, 2, 3, 1))
    positions = None
    if subject.positions is not None:
        positions = pack((subject.positions + 1) / 2)
    return {"name": subject.name, "positions": positions, "filters": filters}


def image_data(seen: Seen, most: int) -> dict[str, Any]:
    return {
        "name": os.path.basename(seen.path),
        "fits": seen.fits,
        "pictures": [data_uri(picture) for picture in seen.pictures],
        "looks": [look_data(look, most // max(1, len(look.layers))) for look in seen.looks],
    }


def look_data(look: Look, most: int) -> dict[str, Any]:
    """`most`: values of the attention of single heads in one layer."""
    return {
        "classToken": look.class_token,
        "layers": [layer_data(layer, most, MOST_VALUES // len(look.layers)) for layer in look.layers],
        "patches": colours_data(look.colours[None]), "foreground": colours_data(look.foreground[None]),
        "objects": [
            {"method": found.method, "how": found.how, "mask": colours_data(found.mask[None, :, :, None]),
             "box": found.box, "patches": int(found.mask.sum())}
            for found in look.objects
        ],
        "words": pack((torch.stack(list(look.words.values())) + 1) / 2) if look.words else None,
        "wordNames": list(look.words),
    }  # fmt: skip


def layer_data(layer: LayerLook, most: int, most_mean: int) -> dict[str, Any]:
    heads, height, width = layer.attention.shape[:3]
    queries = height * width
    small = (height, width)
    mean_block = fitting_block(queries, small, most_mean)
    head_block = fitting_block(queries * heads, small, most)
    everything, spent = (torch.cat([each, each.mean(0, keepdim=True)]) for each in (layer.summary, layer.spent))
    return {
        "grid": layer.grid, "block": layer.block, "heads": heads, "prefix": layer.prefix,
        "mean": pack(layer.attention.float().mean(0), 8, mean_block),
        "byHead": pack(layer.attention, 4, head_block),
        "summary": pack(everything), "rollout": pack(layer.rollout),
        "spent": {"values": text_of((spent.flatten() * 255).round().numpy().astype(np.uint8))},
        "distance": rounded(layer.distance), "entropy": rounded(layer.entropy),
        "even": {"distance": layer.even_distance, "entropy": layer.even_entropy},
    }  # fmt: skip


def colours_data(values: Tensor) -> dict[str, Any]:
    """Pictures (count, H, W, C) of numbers in [0, 1]."""
    levels = values.float().clamp(0, 1).mul(255).round().to(torch.uint8)
    count, height, width = values.shape[:3]
    return {"count": count, "height": height, "width": width, "values": text_of(levels.contiguous().numpy())}


def rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def data_uri(image: Image.Image, quality: int = 84) -> str:
    """The encoded image itself, where an address is expected."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_uri(small)
