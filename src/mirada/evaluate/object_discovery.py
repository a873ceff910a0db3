"""The probe `objects` over a whole source: the model, the same network with random weights, and the centre prior."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mirada.backbones import build
from mirada.data.decode import UndecodableImage, decode_alpha, decode_mask
from mirada.data.images import Images, Progress
from mirada.data.sources import Source
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.objects import METHODS, CentrePrior, Tally, judge, mean_interval
from mirada.evaluate.predict import evaluation_images, some_of
from mirada.inspect.objects.patches import see
from mirada.model import Model
from mirada.preprocess import Preprocess

__all__ = ["Discovered", "as_seen", "discover", "read_methods", "read_truth"]

LOOKED_AT = 64  # images of a source without masks that are searched for transparency before it is refused


class Discovered(NamedTuple):
    """What was found, over all images whose mask could be read."""

    images: int
    metrics: dict[str, float]
    interval: tuple[float, float]  # of the first method's jaccard
    skipped: list[dict[str, str]]


def read_methods(text: str) -> tuple[str, ...]:
    """ "token-cut, lost" to both names. Raises `Misuse` for one that there is not."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in METHODS]:
        raise Misuse(f"There is no method {unknown[0]!r}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}.")
    return names


def discover(
    model: Model, source: Source, methods: Sequence[str], *, refined: bool = False, seed: int = 0, batch: int = 64,
    exact_pixels: bool = False, strict: bool = False, on_progress: Progress | None = None,
) -> Discovered:  # fmt: skip
    """Find objects in all images that have a mask, and compare.

    Of the first of `methods` the metrics are "jaccard", "max_f" and "corloc", of another "lost/jaccard" and so on; with
    "random/" before them they are those of the same architecture with weights drawn by `seed`, and "centre/..." are
    those of `CentrePrior`.
    """
    require_masks(source)
    images = evaluation_images(model, source, exact_pixels=exact_pixels, strict=strict, keep=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = build(model.architecture).to(model.device)
    networks = {"": model.backbone, "random/": untrained}
    tallies = {(before, method): Tally() for method in methods for before in networks}
    centre = CentrePrior(model.preprocess.size) if model.preprocess.resize != "none" else None
    count = 0
    for pixels, truths in with_truths(images, model.preprocess, batch, strict, on_progress):
        normalised = model.preprocess.normalise(pixels).to(model.device, next(model.parameters()).dtype)
        for before, backbone in networks.items():
            own = {method: tallies[before, method] for method in methods}
            judge(own, see(backbone, normalised), pixels, truths, methods, refined)
        centre = centre or CentrePrior((pixels.shape[-2], pixels.shape[-1]))
        for truth in truths:
            centre.add(truth)
        count += len(truths)
    skipped = images.skipped_files()
    if centre is None or not count:
        first = f"; the first: {skipped[0]['path']}: {skipped[0]['reason']}" if skipped else ""
        raise MiradaError(f"None of these images has a mask that can be used{first}.")
    metrics: dict[str, float] = {}
    for (before, method), tally in tallies.items():
        name = before if method == methods[0] else f"{before}{method}/"
        metrics |= {f"{name}{metric}": value for metric, value in tally.metrics()}
    metrics |= {f"centre/{metric}": value for metric, value in centre.best().metrics()}
    return Discovered(count, metrics, mean_interval(tallies["", methods[0]].jaccard), skipped)


def with_truths(
    images: Images, preprocess: Preprocess, batch: int, strict: bool, on_progress: Progress | None
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Pixels (b, 3, height, width), uint8, and masks (height, width), bool, cut alike, of all images that have both;
    the reasons of the others are added to `images.skipped`."""
    for start in range(0, len(images), batch):
        pixels, aspects, places = images.get(range(start, min(start + batch, len(images))))
        kept, truths = [], []
        for row, place in enumerate(places.tolist()):
            index = int(images.usable[place])
            try:
                truths.append(read_truth(images.source, index, preprocess, float(aspects[row])))
                kept.append(row)
            except UndecodableImage as error:
                if strict:
                    path = images.source.path(index)
                    raise MiradaError(f"Cannot use the mask of {path}: {error}.") from error
                images.skipped[index] = error.reason
        if kept:
            yield pixels[kept], truths
        if on_progress is not None:
            on_progress("finding objects", min(start + batch, len(images)), len(images))


def read_truth(source: Source, index: int, preprocess: Preprocess, aspect: float) -> Tensor:
    """The mask of an image as the model would see it, bool (height, width): what is marked in the mask beside it, or
    else what is opaque in the image itself. `aspect` is the image's width over height. Raises `UndecodableImage` where
    there is none that can be used, and says why."""
    encoded = source.read_mask(index)
    mask = decode_alpha(source.read(index)) if encoded is None else decode_mask(encoded)
    if mask is None:
        raise UndecodableImage("it has no mask")
    if not mask.any():
        raise UndecodableImage("nothing is marked in its mask")
    seen = as_seen(mask, preprocess, aspect)
    if not bool(seen.any()):
        raise UndecodableImage("what its mask marks is outside of the part that the model sees")
    return seen


def as_seen(mask: NDArray[np.bool_], preprocess: Preprocess, aspect: float) -> Tensor:
    """A mask as the model would see it, bool (height, width). Raises `UndecodableImage` where it is shaped unlike an
    image of that width over height."""
    height, width = mask.shape
    if abs(width / height / aspect - 1) > 0.02 + 1 / min(height, width):
        raise UndecodableImage(f"its mask is {width}x{height}, shaped unlike the image")
    plain = replace(preprocess, interpolation="nearest", resampler="pillow", antialias=True, fill=(0, 0, 0))
    return plain.pixels(Image.fromarray(mask.astype(np.uint8) * 255))[0] > 0


def require_masks(source: Source) -> None:
    """Raise `MiradaError` at once for a source that has no masks and, as far as one sees, no transparent images."""
    if source.masked:
        return
    for index in some_of(np.arange(len(source)), LOOKED_AT).tolist():
        try:
            if decode_alpha(source.read(index)) is not None:
                return
        except UndecodableImage:
            continue  # reading them all will say so
    raise MiradaError("These images have no masks: objects needs a column mask, a folder masks/ beside the images "
                      "with the same names, or transparent images.")  # fmt: skip
