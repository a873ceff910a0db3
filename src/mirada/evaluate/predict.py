"""What a model says of every image of a source."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mirada.data.decode import decode
from mirada.data.images import Images, Progress
from mirada.data.sources import Source
from mirada.errors import MiradaError
from mirada.model import Model

__all__ = ["Predictions", "evaluation_images", "of_all", "predict", "require_finite", "some_of", "unit_features"]


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
        image = decode(data, at_least=at_least)
        return preprocess.pixels(image), image.width / image.height

    return Images(source, reader, strict=strict, keep=keep, on_progress=on_progress)


def predict(
    model: Model, images: Images, *, batch: int = 256, limit: int | None = None, on_progress: Progress | None = None
) -> Predictions:
    """Logits of all images in order, or of `limit` of those with a label, spread evenly."""
    wanted = np.arange(len(images)) if limit is None else some_of(np.flatnonzero(images.labels >= 0), limit)
    kept, logits = of_all(model.logits, model, images, wanted, batch, "measuring", on_progress)
    return Predictions(images.usable[kept], images.labels[kept], logits)


def unit_features(
    model: Model, images: Images, wanted: NDArray[np.int64], *, batch: int = 256, on_progress: Progress | None = None
) -> tuple[NDArray[np.int64], torch.Tensor]:
    """The wanted places that could be read, and their image features at length 1, float32 (n, D)."""

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return model.encode_image(pixels, normalize=True)

    return of_all(encode, model, images, wanted, batch, "measuring", on_progress)


def require_finite(rows: torch.Tensor, places: NDArray[np.int64], model: Model, source: Source) -> None:
    """Raise `MiradaError` that names the first image whose row, what a model made of it, is not finite."""
    good = rows.flatten(1).isfinite().all(1)
    if not bool(good.all()):
        first = source.path(int(places[int(good.int().argmin())]))
        raise MiradaError(
            f"The features of {first!r} are not finite numbers: the weights of {model.architecture!r} are damaged, "
            "or its training diverged; take an earlier checkpoint."
        )


def some_of(places: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """All of them, or `limit`, spread evenly: data often come sorted by class."""
    if limit is None or limit >= len(places):
        return places
    return places[np.linspace(0, len(places) - 1, limit).round().astype(np.int64)]


def of_all(
    function: Callable[[torch.Tensor], torch.Tensor], model: Model, images: Images, wanted: NDArray[np.int64],
    batch: int, what: str, on_progress: Progress | None,
) -> tuple[NDArray[np.int64], torch.Tensor]:  # fmt: skip
    """The places that could be read, and what `function` makes of their prepared pixels."""
    chunks = [wanted[start : start + batch] for start in range(0, len(wanted), batch)]
    places: list[NDArray[np.int64]] = []
    rows = torch.empty(0, 0)
    done = 0
    for number, chunk in enumerate(chunks):
        pixels, _, good = images.get(chunk)
        if len(good):
            made = function(model.preprocess.normalise(pixels)).cpu()
            if not done:
                rows = made.new_empty(len(wanted), *made.shape[1:])  # at once: there may be no room for two of them
            rows[done : done + len(made)] = made
            done += len(made)
            places.append(good)
        if on_progress is not None:
            on_progress(what, number + 1, len(chunks))
    kept = np.concatenate(places) if places else np.empty(0, np.int64)
    return kept, rows[:done]
