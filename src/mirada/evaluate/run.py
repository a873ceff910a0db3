"""What `mirada evaluate` does: open a model and data, run one probe, add the interval."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirada.data.images import Progress
from mirada.data.sources import DataSet, Source, open_data, require_classes
from mirada.data.splits import train_and_validation
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.accuracy import accuracy, wilson_interval
from mirada.evaluate.knn import knn
from mirada.evaluate.predict import encode, evaluation_images, predict
from mirada.loading import load
from mirada.model import Model

__all__ = ["evaluate"]

PROBES = ("accuracy", "knn")
SPLITS = ("train", "val", "test", "all")


def evaluate(
    ref: str, data: str, *, probe: str = "accuracy", split: str | None = None, batch: int = 256, device: str = "cpu",
    strict: bool = False, exact_pixels: bool = False, on_progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The document that `mirada evaluate --json` prints; its `notes` are sentences a person should see.

    Labels are matched to the model's classes by name, so data in which only some of them occur are fine. `exact_pixels`
    is for scores to compare with published ones: see `mirada.evaluate.predict.evaluation_images`.
    """
    if probe not in PROBES:
        raise Misuse(f"There is no probe {probe!r}: choose {' or '.join(PROBES)}.")
    if split not in (None, *SPLITS):
        raise Misuse(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    model = load(ref, device=device, on_progress=on_progress)
    dataset = open_data(data, strict=strict)
    seed = seed_of_split(model, data)
    reading: dict[str, Any] = {"exact_pixels": exact_pixels, "strict": strict, "keep": False}
    if probe == "knn":
        classes = require_classes(dataset)
        known, name, source, notes = choose_neighbours(dataset, split, seed)
        others = evaluation_images(model, known, **reading)
        images = evaluation_images(model, source, **reading)
        encoded = [encode(model, part, batch=batch, on_progress=on_progress) for part in (others, images)]
        found = knn(encoded[0], encoded[1], len(classes))
        skipped = others.skipped_files() + images.skipped_files()
    else:
        name, source, notes = choose_split(dataset, split, seed)
        labels = match_classes(model, source)
        images = evaluation_images(model, source, **reading)
        found = predict(model, images, batch=batch, on_progress=on_progress)
        found = found._replace(labels=labels[found.places])
        skipped = images.skipped_files()
    metrics = dict(accuracy(found))
    count = int((found.labels >= 0).sum())
    return {
        "probe": probe, "split": name, "n": count, "metrics": metrics,
        "interval": list(wilson_interval(metrics["accuracy"], count)),
        "skipped": [entry._asdict() for entry in dataset.skipped] + skipped, "notes": notes,
    }  # fmt: skip


def seed_of_split(model: Model, data: str) -> int | None:
    """The seed by which training held out a part of these data, if the model was trained on data of that name."""
    seed = model.provenance.get("seed")
    return seed if isinstance(seed, int) and model.provenance.get("data") == Path(data).resolve().name else None


def choose_split(dataset: DataSet, wanted: str | None, seed: int | None) -> tuple[str, Source, list[str]]:
    """The wanted split, or the first of test, val, all and train that is there; its name, and what to say of it.

    Of an undivided data set that the model was trained on, `seed` finds the part that training held out: to measure
    on the rest would flatter the model.
    """
    splits = dataset.splits
    if seed is not None and wanted != "all" and set(splits) == {"all"} and len(splits["all"]) > 1:
        parts = train_and_validation(dataset, seed)
        if wanted == "train":
            return "train", parts.train, []
        if wanted in (None, "val"):
            note = f"The model was trained on {len(parts.train):,} of these images and is measured on the other "
            return "val", parts.validation, [f"{note}{len(parts.validation):,}; --split all takes all of them."]
    if wanted is None:
        wanted = next(name for name in ("test", "val", "all", "train") if name in splits)
    if wanted not in splits:
        raise MiradaError(f"The data have no split {wanted!r}: there is {', '.join(splits)}.")
    return wanted, splits[wanted], []


def choose_neighbours(dataset: DataSet, wanted: str | None, seed: int | None) -> tuple[Source, str, Source, list[str]]:
    """The images that vote, and the name and images of the split that is measured by them.

    The train split votes on another. Undivided data are divided by `seed`, as training divides them.
    """
    splits = dataset.splits
    if wanted in ("train", "all"):
        raise Misuse(f"kNN compares a split with the training images, so --split {wanted} would compare images with "
                     "themselves: choose val or test.")  # fmt: skip
    if "train" in splits and len(splits) > 1:
        name, source, notes = choose_split(dataset, wanted, seed)
        return splits["train"], name, source, notes
    if wanted not in (None, "val") and wanted not in splits:
        raise MiradaError(f"The data have no split {wanted!r}: there is {', '.join(splits)}.")
    parts = train_and_validation(dataset, seed or 0)
    return (
        parts.train,
        parts.name,
        parts.validation,
        [f"{len(parts.train):,} of these images are compared with, and the other {len(parts.validation):,} measured."],
    )


def match_classes(model: Model, source: Source) -> NDArray[np.int64]:
    """The source's labels as the model numbers its classes; -1 stays."""
    if model.classes is None:
        raise MiradaError(f"The model {model.architecture!r} has no classification head: train one, or "
                          "measure its features with --probe knn.")  # fmt: skip
    if source.labels is None or source.classes is None:
        raise MiradaError("These images have no labels: accuracy needs a folder per class, or a label column.")
    if unknown := [name for name in source.classes if name not in model.classes]:
        raise MiradaError(
            f"The model does not know the class {unknown[0]!r}: it knows {', '.join(model.classes[:12])}"
            f"{' ...' if len(model.classes) > 12 else ''}."
        )
    table = np.array([*(model.classes.index(name) for name in source.classes), -1])
    matched: NDArray[np.int64] = table[source.labels]
    return matched
