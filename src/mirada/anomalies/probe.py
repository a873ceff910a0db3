"""The probe `anomaly`: how well a method tells anomalous images, and their pixels, from normal ones.

Normal is one class: the one that is given, or else one called "good" or "normal". The method sees training images of
that class only, or all of them where the training images have no class. Measured is another split, in which images of
that class are normal and all others with a class anomalous. So MVTec AD's folders work as they are, and with labelled
data, such as CIFAR-10, each class in turn can be the normal one.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mirada.anomalies.judge import Judged, judge
from mirada.anomalies.patch_core import heat_maps
from mirada.anomalies.scores import aupro, auroc, auroc_interval
from mirada.data.decode import UndecodableImage, decode_mask
from mirada.data.sources import Source
from mirada.data.splits import Subset
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.object_discovery import as_seen
from mirada.evaluate.predict import some_of
from mirada.model import Model

__all__ = ["NORMAL", "Measured", "measure_anomalies", "normal_class"]

NORMAL = ("good", "normal")
MOST_PIXELS = 1 << 27  # that pixel metrics are taken of: beyond, of images spread evenly


class Measured(NamedTuple):
    """What was found."""

    images: int
    metrics: dict[str, float]
    interval: tuple[float, float]  # of "auroc"
    skipped: list[dict[str, str]]
    notes: list[str]


def normal_class(classes: list[str], wanted: str | None) -> int:
    """The number of the normal class. Raises `Misuse` for one that there is not, and `MiradaError` if none is given
    and none called so."""
    listed = f"{', '.join(classes[:12])}{' ...' if len(classes) > 12 else ''}"
    if wanted is not None:
        if wanted not in classes:
            raise Misuse(f"There is no class {wanted!r} to be the normal one: there is {listed}.")
        return classes.index(wanted)
    for number, name in enumerate(classes):
        if name.lower() in NORMAL:
            return number
    raise MiradaError(f"No class is called good or normal: say which one is with --normal CLASS, of {listed}.")


def measure_anomalies(
    model: Model, training: Source, source: Source, normal: int, method: str, *, seed: int = 0, **reading: Any
) -> Measured:
    """("auroc", ...) over images, and by patches, where there are masks, "pixel_auroc" and "aupro" over pixels.

    Pixels are those that the model sees. A normal image without a mask is normal everywhere; an anomalous one without
    one takes no part in the pixel metrics. `reading` as in `mirada.anomalies.judge.judge`.

    Raises `MiradaError` where there is nothing normal to learn from, or nothing of both kinds to measure.
    """
    assert training.classes is not None or source.classes is not None
    name = (source.classes or training.classes or [])[normal]
    if training.labels is not None:
        training = Subset(training, np.flatnonzero(training.labels == normal))
    if not len(training):
        raise MiradaError(f"None of the training images is of the class {name!r}, which is the normal one: add some.")
    labels = np.full(len(source), -1, np.int64) if source.labels is None else source.labels
    asked = Subset(source, np.flatnonzero(labels >= 0))
    kinds = [bool((labels[labels >= 0] != normal).any()), bool((labels == normal).any())]
    if not all(kinds):
        there = "normal" if kinds[1] else "anomalous" if kinds[0] else "with a class"
        raise MiradaError(f"{'All' if any(kinds) else 'None'} of the measured images are {there}: it takes images of "
                          f"the normal class, {name!r}, and of others.")  # fmt: skip
    judged = judge(model, training, asked, method, calibrate=False, seed=seed, **reading)
    assert asked.labels is not None
    anomalous = asked.labels[judged.places] != normal
    count = int(anomalous.sum())
    if not 0 < count < len(anomalous):
        raise MiradaError("The images that can be read are all normal or all anomalous: it takes both to measure.")
    area = auroc(judged.scores, anomalous)
    notes = [f"{judged.known:,} images of the class {name!r} are normal; of the {len(anomalous):,} that are measured, "
             f"{count:,} are anomalous."]  # fmt: skip
    metrics = {"auroc": area}
    if judged.maps is not None and asked.masked:
        metrics |= _by_pixels(model, asked, judged, anomalous, notes)
    interval = auroc_interval(area, count, len(anomalous) - count)
    return Measured(len(anomalous), metrics, interval, judged.skipped, notes)


def _by_pixels(
    model: Model, asked: Source, judged: Judged, anomalous: NDArray[np.bool_], notes: list[str]
) -> dict[str, float]:
    """The metrics of pixels, or none where no mask can be used; notes are added to."""
    assert judged.maps is not None
    assert judged.aspects is not None
    size = model.preprocess.size
    maps, truths, without = [], [], 0
    chosen = some_of(np.arange(len(judged.places)), max(2, MOST_PIXELS // (size[0] * size[1])))
    if len(chosen) < len(judged.places):
        notes.append(f"Pixels are measured of {len(chosen):,} of the images.")
    for row in chosen.tolist():
        place, aspect = int(judged.places[row]), float(judged.aspects[row])
        try:
            encoded = asked.read_mask(place)
            mask = None if encoded is None else as_seen(decode_mask(encoded), model.preprocess, aspect).numpy()
        except UndecodableImage as error:
            judged.skipped.append({"path": f"the mask of {asked.path(place)}", "reason": error.reason})
            continue
        if mask is None and anomalous[row]:
            without += 1
            continue
        maps.append(heat_maps(judged.maps[row : row + 1], size)[0].numpy())
        truths.append(np.zeros(size, np.bool_) if mask is None else mask)
    if without:
        notes.append(f"{without:,} anomalous images have no mask, and no part in the scores of pixels.")
    marked = np.concatenate([truth.ravel() for truth in truths]) if truths else np.zeros(0, np.bool_)
    if not marked.any() or marked.all():
        return {}
    scores = torch.from_numpy(np.stack(maps)).flatten().numpy()
    return {"pixel_auroc": auroc(scores, marked), "aupro": aupro(maps, truths)}
