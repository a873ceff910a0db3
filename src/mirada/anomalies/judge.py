"""Scores of the images of one source by those of another, which are normal: one way in for all methods."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirada.anomalies import mahalanobis, neighbours
from mirada.anomalies.coreset import Coreset
from mirada.anomalies.mean_shift import adapt
from mirada.anomalies.patch_core import Memory, memory_size, patch_features, patch_scores
from mirada.data.images import Images, Progress
from mirada.data.sources import Source
from mirada.data.splits import Subset
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.features import extract
from mirada.evaluate.predict import evaluation_images, some_of
from mirada.model import Model

__all__ = ["METHODS", "Judged", "judge", "limit_of", "read_method"]

METHODS = ("knn", "mahalanobis", "patches", "mean-shift")
COMPARED = 256  # normal images, spread evenly, whose patches are scored to learn how much normal ones differ
QUANTILE = 0.99
ROUNDING = 1e-5  # of a feature's length, by which the place in a batch may change it


class Judged(NamedTuple):
    """One row for each image that could be read."""

    places: NDArray[np.int64]  # (n,) indices into the source
    scores: NDArray[np.float64]  # (n,) in the method's own unit
    normal: NDArray[np.float64]  # (m,) scores of normal images, each as if it had been left out; (0,) if not wanted
    known: int  # normal images that could be read
    skipped: list[dict[str, str]]  # of both sources: path, reason
    maps: Tensor | None = None  # (n, H, W) scores of patches
    aspects: Tensor | None = None  # (n,) width over height, where there are maps


def read_method(name: str) -> str:
    """Raises `Misuse` for a method that there is not."""
    if name not in METHODS:
        raise Misuse(f"There is no method {name!r}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}.")
    return name


def judge(
    model: Model, normal: Source, asked: Source, method: str, *, own: NDArray[np.int64] | None = None,
    calibrate: bool = True, seed: int = 0, batch: int = 64, exact_pixels: bool = False, strict: bool = False,
    on_progress: Progress | None = None,
) -> Judged:  # fmt: skip
    """How unusual each image of `asked` is beside those of `normal`: more is more unusual.

    Args:
        own: (len(asked),) which normal image each of `asked` is itself, or -1; it is then compared with the others.
        calibrate: whether scores of normal images are wanted, too.
        seed: of the projection that a coreset is chosen in, and of the adaptation.
        batch, exact_pixels, strict, on_progress: as in `mirada.evaluate.features.extract`.

    Raises:
        MiradaError: fewer than two normal images that can be read; none that can be scored; a model that does not fit
            the method.
    """
    own = np.full(len(asked), -1, np.int64) if own is None else own
    reading: dict[str, Any] = {"exact_pixels": exact_pixels, "strict": strict}
    if method == "patches":
        return _by_patches(model, normal, asked, own, calibrate, seed, batch, reading, on_progress)
    reading |= {"batch": batch, "on_progress": on_progress}
    known = extract(model, normal, **reading)
    _require_several(len(known.places), normal)
    if calibrate:
        away = torch.linalg.vector_norm(known.features - known.features[0], dim=1).max()
        _require_different(float(away), float(known.features[0].norm()))
    if method == "mean-shift":
        model = adapt(model, Subset(normal, known.places), known.features, seed=seed, on_progress=on_progress)
        known = extract(model, normal, **reading)
    found = extract(model, asked, **reading)
    if method == "mahalanobis":
        gaussian = mahalanobis.fit(known.features)
        scores = mahalanobis.mahalanobis(gaussian, found.features).numpy()
        left_out = mahalanobis.leave_one_out(gaussian, known.features).numpy()
    else:
        scores = neighbours.neighbour_scores(known.features, found.features).numpy()
        left_out = neighbours.leave_one_out(known.features).numpy()
    rows = np.full(len(normal) + 1, -1, np.int64)  # the last is that of no normal image
    rows[known.places] = np.arange(len(known.places))
    mine = rows[own[found.places]]
    scores = np.where(mine >= 0, left_out[mine], scores)
    skipped = [_skipped(normal, *one) for one in known.skipped] + [_skipped(asked, *one) for one in found.skipped]
    return Judged(found.places, scores, left_out, len(known.places), skipped)


def limit_of(judged: Judged) -> float:
    """What 99% of the normal images stay below. Raises `MiradaError` where they do not differ at all."""
    limit = float(np.quantile(judged.normal, QUANTILE))
    _require_different(limit, 0.0)
    return limit


def _by_patches(
    model: Model, normal: Source, asked: Source, own: NDArray[np.int64], calibrate: bool, seed: int, batch: int,
    reading: dict[str, Any], on_progress: Progress | None,
) -> Judged:  # fmt: skip
    known = evaluation_images(model, normal, keep=False, **reading)
    coreset: Coreset | None = None
    count = 0
    everything = np.arange(len(normal))
    for places, _, patches in _patches_of(model, known, everything, batch, "reading normal patches", on_progress):
        height, width, dim = patches.shape[1:]
        coreset = coreset or Coreset(memory_size(len(normal) * height * width), dim, seed)
        for place, one in zip(places.tolist(), patches, strict=True):
            coreset.add(one.flatten(0, 1), place)
        count += len(places)
    _require_several(count, normal)
    assert coreset is not None
    memory = Memory(*coreset.finish())
    left_out = []
    compared = some_of(everything, COMPARED) if calibrate else everything[:0]
    for places, _, patches in _patches_of(model, known, compared, batch, "comparing normal images", on_progress):
        left_out += [patch_scores(memory, one, place)[0] for place, one in zip(places.tolist(), patches, strict=True)]
    if calibrate:
        _require_different(max(left_out), float(memory.rows.norm(dim=1).mean()))
    images = evaluation_images(model, asked, keep=False, **reading)
    found, scores, maps, shapes = [], [], [], []
    for places, aspects, patches in _patches_of(model, images, np.arange(len(asked)), batch, "measuring", on_progress):
        for place, one in zip(places.tolist(), patches, strict=True):
            score, distances = patch_scores(memory, one, int(own[place]))
            scores.append(score)
            maps.append(distances)
        found.append(places)
        shapes.append(aspects)
    skipped = known.skipped_files() + images.skipped_files()
    return Judged(np.concatenate(found), np.array(scores), np.array(left_out), count, skipped, torch.stack(maps),
                  torch.cat(shapes))  # fmt: skip


def _patches_of(
    model: Model, images: Images, wanted: NDArray[np.int64], batch: int, what: str, on_progress: Progress | None
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Places, aspects (b,) and patch features (b, H, W, D) of a batch at a time."""
    for start in range(0, len(wanted), batch):
        pixels, aspects, places = images.get(wanted[start : start + batch])
        if len(places):
            patches = patch_features(model, model.preprocess.normalise(pixels))
            good = patches.flatten(1).isfinite().all(1)
            if not bool(good.all()):
                first = images.source.path(int(places[int(good.int().argmin())]))
                raise MiradaError(f"The features of {first!r} are not finite numbers: the weights of "
                                  f"{model.architecture!r} are damaged; take an earlier checkpoint.")  # fmt: skip
            yield places, aspects, patches
        if on_progress is not None:
            on_progress(what, min(start + batch, len(wanted)), len(wanted))


def _require_several(count: int, normal: Source) -> None:
    if count < 2:
        first = f", {normal.path(0)!r}" if len(normal) == 1 else ""
        raise MiradaError(f"There is one normal image only that can be read{first}: it takes two or more to see how "
                          "much normal ones differ, and better dozens.")  # fmt: skip


def _require_different(distance: float, size: float) -> None:
    """Raise `MiradaError` where the largest distance between normal features of that size is rounding."""
    if not distance > ROUNDING * size:
        raise MiradaError("The normal images are all alike to this model, and nothing says how much normal ones may "
                          "differ: add other normal images.")  # fmt: skip


def _skipped(source: Source, index: int, reason: str) -> dict[str, str]:
    return {"path": source.path(index), "reason": reason}
