"""A model's scores for every image of a source: what the probes that need a head start from."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mirada.data.decode import decode
from mirada.data.images import Images, Progress
from mirada.data.sources import Source
from mirada.model import Model

__all__ = ["Predictions", "evaluation_images", "predict"]


class Predictions(NamedTuple):
    """One row for each image that could be read."""

    places: NDArray[np.int64]  # (n,) indices into the source
    labels: NDArray[np.int64]  # (n,), -1 where there is none
    logits: torch.Tensor  # (n, C) float32


def evaluation_images(
    model: Model, source: Source, *, exact_pixels: bool = False, strict: bool = False, keep: bool | None = None,
    on_progress: Progress | None = None,
) -> Images:  # fmt: skip
    """The source as this model expects its pixels, uint8, before normalisation.

    Large JPEGs are decoded at a reduced size, which is faster and changes scores by little. With `exact_pixels` they
    are decoded in full, as `Model.encode_image` does, and so are the pixels those of the checkpoint's own library.
    """
    preprocess = model.preprocess
    at_least = None if exact_pixels else preprocess.reads_at_least()

    def reader(data: bytes) -> tuple[torch.Tensor, float]:
        return preprocess.pixels(decode(data, at_least=at_least)), 1.0

    return Images(source, reader, strict=strict, keep=keep, on_progress=on_progress)


def predict(
    model: Model, images: Images, *, batch: int = 256, limit: int | None = None, on_progress: Progress | None = None
) -> Predictions:
    """Logits of all images in order, or of `limit` of them, spread evenly: data often come sorted by class."""
    wanted = np.arange(len(images))
    if limit is not None and limit < len(images):
        wanted = np.linspace(0, len(images) - 1, limit).round().astype(np.int64)
    chunks = [wanted[start : start + batch] for start in range(0, len(wanted), batch)]
    places, logits = [], []
    for number, chunk in enumerate(chunks):
        pixels, _, good = images.get(chunk)
        if len(good):
            places.append(good)
            logits.append(model.logits(model.preprocess.normalise(pixels)).cpu())
        if on_progress is not None:
            on_progress("measuring", number + 1, len(chunks))
    kept = np.concatenate(places) if places else np.empty(0, np.int64)
    return Predictions(images.usable[kept], images.labels[kept], torch.cat(logits) if logits else torch.empty(0, 0))
