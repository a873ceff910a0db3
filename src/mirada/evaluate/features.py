"""Image features of a whole source, computed once: later probes of the same model on the same images read them again.

They are kept as safetensors in `cache_folder("features")`, by a name that is a hash of everything they depend on:
weights, design, preprocessing, the encoded images in their order, and the libraries that decode and compute. Labels and
file names are no part of it, so data may be moved or labelled anew. What was longest unused goes when room gets short.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import safetensors
import torch
from numpy.typing import NDArray
from torch import Tensor

import mirada
from mirada.caching import add_tensors, cache_folder
from mirada.data.decode import UndecodableImage, readable_formats
from mirada.data.images import Progress
from mirada.data.sources import Source
from mirada.errors import MiradaError
from mirada.evaluate.predict import evaluation_images, of_all, require_finite
from mirada.model import Model
from mirada.saving import save_atomically

__all__ = ["Encoded", "Labelled", "extract"]

FORMAT = 1  # to be raised when the same model makes other features of the same images
MOST = 4 << 30  # bytes that all kept features may take
AT_ONCE = 4096  # images between two reports of progress while they are hashed


class Encoded(NamedTuple):
    """One row for each image that could be read."""

    features: Tensor  # (n, D) float32
    places: NDArray[np.int64]  # (n,) indices into the source
    skipped: list[tuple[int, str]]  # the other indices, and why


class Labelled(NamedTuple):
    """What a probe knows of some images."""

    features: Tensor  # (n, D) float32
    labels: Tensor  # (n,) int64, from 0


def extract(
    model: Model, source: Source, *, batch: int = 256, exact_pixels: bool = False, strict: bool = False,
    on_progress: Progress | None = None,
) -> Encoded:  # fmt: skip
    """`Model.encode_image` of every image, from the cache where it has them.

    `exact_pixels` and `strict` are those of `evaluation_images`. Raises `MiradaError` for features that are not finite.
    """
    file: Path | None = None
    unreadable: set[int] = set()
    if (folder := cache_folder("features")) is not None:
        key, unreadable = _key(model, source, exact_pixels, on_progress)
        file = folder / f"{key}.safetensors"
        known = _read(file)
        if known is not None and not (strict and known.skipped):
            return known
    images = evaluation_images(model, source, exact_pixels=exact_pixels, strict=strict, keep=False)
    kept, features = of_all(model.encode_image, model, images, np.arange(len(images)), batch, "encoding", on_progress)
    encoded = Encoded(features, images.usable[kept], sorted(images.skipped.items()))
    require_finite(features, encoded.places, model, source)
    # What could be read for the key, and not for the features, may be read again next time.
    lost = {index for index, why in encoded.skipped if why.startswith("cannot be read")} - unreadable
    if file is not None and not lost:
        _write(file, encoded)
    return encoded


def _key(model: Model, source: Source, exact_pixels: bool, on_progress: Progress | None) -> tuple[str, set[int]]:
    """The hash, and the images that could not be read for it."""
    unreadable: set[int] = set()
    total = blake2b(digest_size=20)
    design = model.design.to_dict()
    facts = {name: design[name] for name in ("architecture", "preprocess", "projection")}
    versions = [FORMAT, mirada.__version__, torch.__version__, PIL.__version__, *readable_formats()]
    total.update(json.dumps([facts, versions, model.device.type, exact_pixels], sort_keys=True).encode())
    weights = model.state_dict().items()
    add_tensors(total, (pair for pair in weights if pair[0].startswith(("backbone.", "projection."))))
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for start in range(0, len(source), AT_ONCE):
            end = min(start + AT_ONCE, len(source))
            for index, digest in enumerate(threads.map(lambda index: _digest(source, index), range(start, end)), start):
                total.update(digest or b"unreadable")
                if digest is None:
                    unreadable.add(index)
            if on_progress is not None and len(source) > AT_ONCE:
                on_progress("looking for known features", end, len(source))
    return total.hexdigest(), unreadable


def _digest(source: Source, index: int) -> bytes | None:
    try:
        return blake2b(source.read(index), digest_size=20).digest()
    except UndecodableImage:
        return None


def _read(file: Path) -> Encoded | None:
    """What was kept, if it is there and whole."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            skipped = [(int(index), str(reason)) for index, reason in json.loads(opened.metadata()["skipped"])]
            encoded = Encoded(opened.get_tensor("features"), opened.get_tensor("places").numpy(), skipped)
        os.utime(file)  # used now
    except (OSError, LookupError, TypeError, ValueError, safetensors.SafetensorError):
        return None
    return encoded


def _write(file: Path, encoded: Encoded) -> None:
    """Keep them if there is room and the folder can be written; a cache that cannot be is not worth a word."""
    features, places = encoded.features.contiguous(), torch.from_numpy(encoded.places)
    size = features.nbytes + places.nbytes
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        room = os.statvfs(file.parent) if hasattr(os, "statvfs") else None
        if size > MOST // 4 or (room is not None and size > room.f_bavail * room.f_frsize // 10):
            return
        _make_room(file.parent, MOST - size)
        metadata = {"skipped": json.dumps(encoded.skipped)}
        save_atomically(file, {"features": features, "places": places}, metadata)
    except (OSError, MiradaError):
        return


def _make_room(folder: Path, allowed: int) -> None:
    """Delete what was longest unused until the rest takes `allowed` bytes at most."""
    files = [(entry.stat(), entry) for entry in folder.glob("*.safetensors")]
    files.sort(key=lambda pair: pair[0].st_mtime, reverse=True)
    total = 0
    for facts, entry in files:
        total += facts.st_size
        if total > allowed:
            entry.unlink(missing_ok=True)
