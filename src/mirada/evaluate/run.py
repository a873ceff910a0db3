"""What `mirada evaluate` does: open a model and data, run one probe, add the interval."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mirada.anomalies.judge import read_method
from mirada.anomalies.probe import measure_anomalies, normal_class
from mirada.data.dataset import few, own_name
from mirada.data.images import Progress
from mirada.data.sources import DataSet, Source, open_data
from mirada.data.splits import train_and_validation
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.accuracy import accuracy, wilson_interval
from mirada.evaluate.descent import LARGE, attentive, extract_tokens, linear_by_descent
from mirada.evaluate.features import Encoded, Labelled, extract
from mirada.evaluate.few_shot import SHOTS, few_shot, few_shot_interval, possible_shots
from mirada.evaluate.knn import knn
from mirada.evaluate.linear import linear
from mirada.evaluate.object_discovery import discover, read_methods
from mirada.evaluate.pairs import pair_retrieval
from mirada.evaluate.predict import evaluation_images, predict, require_finite
from mirada.evaluate.retrieval import queries, retrieval
from mirada.evaluate.zero_shot import named, zero_shot
from mirada.loading import load
from mirada.model import Model
from mirada.zero_shot import Label, read_labels
from mirada.zero_shot import templates as read_templates

__all__ = ["PROBES", "evaluate"]

PROBES = ("accuracy", "knn", "linear", "attentive", "few-shot", "zero-shot", "retrieval", "objects", "anomaly")
SPLITS = ("train", "val", "test", "all")
SCORES = ("accuracy", "mAP", "text_to_image/R@1", "jaccard", "auroc")  # of these, the one that the interval is of


class Measured(NamedTuple):
    """What one probe found."""

    split: str
    images: int  # that the scores are means of
    metrics: dict[str, float]
    skipped: list[dict[str, str]]
    notes: list[str]
    interval: tuple[float, float] | None = None  # None: that of a share of the images


def evaluate(
    ref: str, data: str, *, probe: str = "accuracy", split: str | None = None, seed: int = 0, batch: int = 256,
    device: str = "cpu", strict: bool = False, exact_pixels: bool = False, labels: str | None = None,
    templates: str | None = None, method: str | None = None, refine: bool = False,
    normal: str | None = None, on_progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The document that `mirada evaluate --json` prints; its `notes` are sentences a person should see.

    "accuracy" is that of the model's head; the other probes look at its features only, so a model needs no head, and
    labels are those of the data. Of a head's, labels are matched to its classes by name, so data in which only some of
    them occur are fine. "retrieval" is by captions, both ways, where the model has a text tower and the data have
    captions, and else by labels. "objects" needs masks, and no labels: see `mirada.evaluate.objects`.
    "anomaly" needs a class of normal images and others: see `mirada.anomalies.probe`.

    Args:
        split: train, val, test or all; by default the first of test and val, or a part that `seed` holds out.
        seed: divides undivided data, draws what probes draw, and makes the weights of a size name.
        exact_pixels: for scores to compare with published ones: see `mirada.evaluate.predict.evaluation_images`.
        labels, templates: of zero-shot: words and synonyms for the classes, the classes' own names by default, and
            what they are put into (see `mirada.zero_shot`).
        method, refine: of objects: token-cut, lost, attention or mask-cut, or several with commas, of which the first
            names the score; and whether edges of the masks are moved to edges of the image. The method of anomaly is
            one of `mirada.anomalies.judge.METHODS`, knn by default.
        normal: of anomaly: the class that is normal, by default one called good or normal.
    """
    if probe not in PROBES:
        raise Misuse(f"There is no probe {probe!r}: choose {', '.join(PROBES[:-1])} or {PROBES[-1]}.")
    if split not in (None, *SPLITS):
        raise Misuse(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    if (labels or templates) and probe != "zero-shot":
        raise Misuse(f"Labels and templates are words for the probe zero-shot, and {probe} reads none: leave them out.")
    if (method and probe not in ("objects", "anomaly")) or (refine and probe != "objects"):
        which = "A method is for the probes objects and anomaly" if method else "Refinement is for the probe objects"
        raise Misuse(f"{which}, not for {probe}: leave it out.")
    if normal is not None and probe != "anomaly":
        raise Misuse(f"A normal class is for the probe anomaly, not for {probe}: leave --normal out.")
    methods = read_methods(method or "token-cut") if probe == "objects" else ()
    way = read_method(method or "knn") if probe == "anomaly" else ""
    if split in ("train", "all") and probe not in ("accuracy", "retrieval", "zero-shot", "objects"):
        raise Misuse(f"The probe {probe} learns from the training images, so --split {split} would compare images with "
                     "themselves: choose val or test.")  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # a size name has random weights: the same ones each time
        torch.manual_seed(seed)
        model = load(ref, device=device, on_progress=on_progress)
    dataset = open_data(data, strict=strict, new_classes=probe == "anomaly")
    seeds = seeds_of_split(model, data, dataset)
    trained = seeds[-1] if seeds else None
    reading: dict[str, Any] = {"exact_pixels": exact_pixels, "strict": strict}
    if probe == "accuracy":
        name, source, notes = choose_split(dataset, split, trained)
        found = measure_head(model, source, batch, reading, on_progress)
    elif probe == "zero-shot":
        classes = require_labels(dataset, probe)
        name, source, notes = choose_split(dataset, split, trained)
        words, more = name_classes(classes, labels)
        notes += more
        found = measure_words(model, source, words, templates or "en", reading | {"batch": batch}, on_progress)
    elif probe == "retrieval" and model.text is not None and dataset.captioned:
        name, source, notes = choose_split(dataset, split, trained)
        found = measure_pairs(model, source, batch, reading, on_progress)
    elif probe == "objects":
        name, source, notes = choose_split(dataset, split, trained)
        found = measure_objects(model, source, methods, refine, seed, reading | {"batch": batch}, on_progress)
    else:
        classes = require_labels(dataset, probe)
        reading |= {"batch": batch, "on_progress": on_progress}
        if probe == "retrieval":
            name, source, notes = choose_split(dataset, split, trained)
            training = None
        else:
            training, name, source, notes = choose_training(dataset, split, seed if trained is None else trained)
        if probe == "anomaly":
            assert training is not None
            number = normal_class(classes, normal)
            found = measured_anomalies(model, training, source, number, way, seed, reading)
        else:
            found = measure_features(model, training, source, classes, probe, seed, reading)
    if len(seeds) > 1 and len(dataset.splits) == 1:
        notes = [*notes, f"The model was trained on these images with the seeds {few(seeds)}, each of which "
                         "divides them in another way: it has seen some that it is measured on here."]  # fmt: skip
    found = found._replace(split=name, notes=notes + found.notes)
    score = found.metrics[next(name for name in SCORES if name in found.metrics)]
    return {
        "probe": probe, "split": found.split, "n": found.images, "metrics": found.metrics,
        "interval": list(found.interval or wilson_interval(score, found.images)),
        "skipped": [entry._asdict() for entry in dataset.skipped] + found.skipped, "notes": found.notes,
    }  # fmt: skip


def measure_head(
    model: Model, source: Source, batch: int, reading: dict[str, Any], on_progress: Progress | None
) -> Measured:
    """The accuracy of what the model itself says."""
    labels = match_classes(model, source)
    images = evaluation_images(model, source, keep=False, **reading)
    found = predict(model, images, batch=batch, on_progress=on_progress)
    require_finite(found.logits, found.places, model, source)
    found = found._replace(labels=labels[found.places])
    return Measured("", int((found.labels >= 0).sum()), dict(accuracy(found)), images.skipped_files(), [])


def name_classes(classes: list[str], labels: str | None) -> tuple[list[Label], list[str]]:
    """Words for the classes, their own names where none are given; and notes."""
    if labels is None:
        return [Label(name) for name in classes], []
    given, notes = read_labels(labels)
    return named(given, classes), notes


def measure_words(
    model: Model, source: Source, words: list[Label], templates: str, reading: dict[str, Any],
    on_progress: Progress | None,
) -> Measured:  # fmt: skip
    """Zero-shot accuracy."""
    model.two_towers()
    chosen = read_templates(templates)
    encoded = extract(model, source, on_progress=on_progress, **reading)
    asked = labelled(source, encoded, "measured")
    metrics = dict(zero_shot(model, asked, words, chosen, on_progress=on_progress))
    return Measured("", len(asked.labels), metrics, skipped_files(source, encoded), [])


def measure_pairs(
    model: Model, source: Source, batch: int, reading: dict[str, Any], on_progress: Progress | None
) -> Measured:
    """Retrieval between images and their captions."""
    images = evaluation_images(model, source, keep=False, **reading)
    found = pair_retrieval(model, images, batch=batch, on_progress=on_progress)
    interval = wilson_interval(found.metrics["text_to_image/R@1"], found.texts)
    return Measured("", found.images, found.metrics, images.skipped_files(), [], interval)


def measure_objects(
    model: Model, source: Source, methods: tuple[str, ...], refine: bool, seed: int, reading: dict[str, Any],
    on_progress: Progress | None,
) -> Measured:  # fmt: skip
    """Objects found without labels, beside masks."""
    found = discover(model, source, methods, refined=refine, seed=seed, on_progress=on_progress, **reading)
    return Measured("", found.images, found.metrics, found.skipped, [], found.interval)


def measured_anomalies(
    model: Model, training: Source, source: Source, normal: int, method: str, seed: int, reading: dict[str, Any]
) -> Measured:
    """Anomalous images, told from those of the class of that number."""
    found = measure_anomalies(model, training, source, normal, method, seed=seed, **reading)
    return Measured("", found.images, found.metrics, found.skipped, found.notes, found.interval)


def measure_features(
    model: Model, training: Source | None, source: Source, classes: list[str], probe: str, seed: int,
    reading: dict[str, Any],
) -> Measured:  # fmt: skip
    """What a probe that learns from `training`, if there is any, makes of the features of `source`."""
    encode = extract_tokens if probe == "attentive" else extract
    encoded = encode(model, source, **reading)
    skipped = skipped_files(source, encoded)
    asked = labelled(source, encoded, "measured")
    notes: list[str] = []
    if training is None:
        metrics = dict(retrieval(asked, on_progress=reading["on_progress"]))
        return Measured("", int(queries(asked.labels).sum()), metrics, skipped, notes)
    encoded = encode(model, training, **reading)
    skipped = skipped_files(training, encoded) + skipped
    known = labelled(training, encoded, "training")
    require_known(known, asked, classes)
    if probe == "few-shot" and (missing := [count for count in SHOTS if count not in possible_shots(known.labels)]):
        present, counts = np.unique(known.labels.numpy(), return_counts=True)
        smallest = classes[present[counts.argmin()]]
        notes.append(f"The class {smallest!r} has {counts.min()} of the training images, so there is no score for "
                     f"{' and '.join(map(str, missing))} per class.")  # fmt: skip
    scores: Iterator[tuple[str, float]]
    match probe:
        case "knn":
            scores = knn(known, asked, len(classes))
        case "linear":
            fit = linear if len(known.labels) <= LARGE else linear_by_descent
            scores = fit(known, asked, len(classes), seed=seed, on_progress=reading["on_progress"])
        case "attentive":
            scores = attentive(known, asked, len(classes), seed=seed, on_progress=reading["on_progress"])
        case _:
            metrics = dict(few_shot(known, asked, seed=seed))
            return Measured(
                "", len(asked.labels), metrics, skipped, notes, few_shot_interval(metrics, len(asked.labels))
            )
    return Measured("", len(asked.labels), dict(scores), skipped, notes)


def skipped_files(source: Source, encoded: Encoded) -> list[dict[str, str]]:
    """[{"path", "reason"}, ...] of what could not be read."""
    return [{"path": source.path(index), "reason": reason} for index, reason in encoded.skipped]


def labelled(source: Source, encoded: Encoded, what: str) -> Labelled:
    """The images that have a label. Raises `MiradaError` if none has."""
    labels = np.full(len(source), -1, np.int64) if source.labels is None else source.labels
    found = torch.from_numpy(labels[encoded.places])
    if not bool((found >= 0).any()):
        raise MiradaError(f"None of the {what} images has a label: probes need a folder per class, or a label column.")
    if bool((found >= 0).all()):
        return Labelled(encoded.features, found)
    return Labelled(encoded.features[found >= 0], found[found >= 0])


def require_labels(dataset: DataSet, probe: str) -> list[str]:
    """The classes, two or more."""
    if dataset.classes is None:
        raise MiradaError(f"These images have no labels: {probe} needs a folder per class, or a label column.")
    if len(dataset.classes) < 2:
        raise MiradaError(f"There is one class only, {dataset.classes[0]!r}: {probe} takes images of two or more.")
    return dataset.classes


def require_known(known: Labelled, asked: Labelled, classes: list[str]) -> None:
    """Raise `MiradaError` for a class to be told that no training image is of, and for a single one."""
    there = set(known.labels.tolist())
    if missing := sorted(set(asked.labels.tolist()) - there):
        raise MiradaError(
            f"No training image that can be read is of the class {few(classes[label] for label in missing)}: "
            "add images of it to train, or take it out."
        )
    if len(there) < 2:
        raise MiradaError(f"All training images that can be read are of the class {classes[there.pop()]!r}: "
                          "add images of another.")  # fmt: skip


def seeds_of_split(model: Model, data: str, dataset: DataSet) -> list[int]:
    """The seeds by which training held out a part of these data, the last one last: of the model itself and of those
    that it started from or was blended from, as far as they were trained on data of that name, or whose samples have
    the same names. Where some have come or gone since, few of the others change their part."""
    name, names = own_name(data), dataset.fingerprint
    seeds: list[int] = []

    def collect(provenance: dict[str, Any]) -> None:
        for earlier in provenance.get("of", []):
            collect(earlier)
        seed = provenance.get("seed")
        if isinstance(seed, int) and (provenance.get("data") == name or provenance.get("names") == names):
            seeds.append(seed)

    collect(model.provenance)
    return list(dict.fromkeys(reversed(seeds)))[::-1]


def choose_split(dataset: DataSet, wanted: str | None, seed: int | None) -> tuple[str, Source, list[str]]:
    """The wanted split, or the first of test, val, all and train that is there; its name, and what to say of it.

    Of a data set with one split only that the model was trained on, `seed` finds the part that training held out: to
    measure on the rest would flatter the model.
    """
    splits = dataset.splits
    only = next((name for name in ("all", "train") if set(splits) == {name}), None)
    if seed is not None and only is not None and wanted != only and len(splits[only]) > 1:
        parts = train_and_validation(dataset, seed)
        if wanted == "train":
            return "train", parts.train, []
        if wanted in (None, "val"):
            note = ("The model was trained on data of this name, or of these file names: it is measured on the "
                    f"{len(parts.validation):,} of {len(splits[only]):,} images that training holds out; "
                    f"--split {only} takes all of them.")  # fmt: skip
            return "val", parts.validation, [note]
    if wanted is None:
        wanted = next(name for name in ("test", "val", "all", "train") if name in splits)
    if wanted not in splits:
        raise MiradaError(f"The data have no split {wanted!r}: there is {', '.join(splits)}.")
    return wanted, splits[wanted], []


def choose_training(dataset: DataSet, wanted: str | None, seed: int) -> tuple[Source, str, Source, list[str]]:
    """The images that a probe learns from, and the name and images of the split that is measured.

    The train split teaches about another. Undivided data are divided by `seed`, class by class, as training does it.
    """
    splits = dataset.splits
    if "train" in splits and len(splits) > 1:
        name = wanted or next(name for name in ("test", "val") if name in splits)
        if name not in splits:
            raise MiradaError(f"The data have no split {name!r}: there is {', '.join(splits)}.")
        return splits["train"], name, splits[name], []
    parts = train_and_validation(dataset, seed)
    if wanted not in (None, parts.name):
        raise MiradaError(f"The data have no split {wanted!r}: there is {', '.join(splits)}.")
    count, others = len(parts.train), len(parts.validation)
    if not others:
        raise MiradaError("There is one image only of each class, and nothing is left to measure: add more of them.")
    note = f"{count:,} of these images are learned from, and the other {others:,} measured."
    return parts.train, parts.name, parts.validation, [note, *parts.notes]


def match_classes(model: Model, source: Source) -> NDArray[np.int64]:
    """The source's labels as the model numbers its classes; -1 stays. Of several classes of one name, the first is the
    model's first."""
    if model.classes is None:
        raise MiradaError(f"The model {model.architecture!r} has no classification head: train one, or "
                          "measure its features with --probe knn or linear.")  # fmt: skip
    if source.labels is None or source.classes is None:
        raise MiradaError("These images have no labels: accuracy needs a folder per class, or a label column.")
    if unknown := [name for name in source.classes if name not in model.classes]:
        raise MiradaError(
            f"The model does not know the class {unknown[0]!r}: it knows {', '.join(model.classes[:12])}"
            f"{' ...' if len(model.classes) > 12 else ''}."
        )
    left = list(model.classes)
    table = np.full(len(source.classes) + 1, -1)
    for number, name in enumerate(source.classes):
        table[number] = (left if name in left else model.classes).index(name)
        left[table[number]] = ""
    matched: NDArray[np.int64] = table[source.labels]
    return matched
