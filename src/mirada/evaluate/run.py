"""What `mirada evaluate` does: open a model and data, run one probe, add the interval."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirada.data.images import Progress
from mirada.data.sources import DataSet, Source, open_data
from mirada.data.splits import train_and_validation
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.accuracy import accuracy, wilson_interval
from mirada.evaluate.predict import evaluation_images, predict
from mirada.loading import load
from mirada.model import Model

__all__ = ["evaluate"]

SPLITS = ("train", "val", "test", "all")


def evaluate(
    ref: str, data: str, *, probe: str = "accuracy", split: str | None = None, batch: int = 256, device: str = "cpu",
    strict: bool = False, exact_pixels: bool = False, on_progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The document that `mirada evaluate --json` prints; its `notes` are sentences a person should see.

    Labels are matched to the model's classes by name, so data in which only some of them occur are fine. `exact_pixels`
    is for scores to compare with published ones: see `mirada.evaluate.predict.evaluation_images`.
    """
    if probe != "accuracy":
        raise Misuse(f"There is no probe {probe!r}: there is accuracy.")
    if split not in (None, *SPLITS):
        raise Misuse(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    model = load(ref, device=device, on_progress=on_progress)
    dataset = open_data(data, strict=strict)
    name, source, notes = choose_split(dataset, split, seed_of_split(model, data))
    labels = match_classes(model, source)
    images = evaluation_images(model, source, exact_pixels=exact_pixels, strict=strict, keep=False)
    found = predict(model, images, batch=batch, on_progress=on_progress)
    found = found._replace(labels=labels[found.places])
    metrics = dict(accuracy(found))
    count = int((found.labels >= 0).sum())
    return {
        "probe": probe, "split": name, "n": count, "metrics": metrics,
        "interval": list(wilson_interval(metrics["accuracy"], count)),
        "skipped": [entry._asdict() for entry in dataset.skipped] + images.skipped_files(), "notes": notes,
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


def match_classes(model: Model, source: Source) -> NDArray[np.int64]:
    """The source's labels as the model numbers its classes; -1 stays."""
    if model.classes is None:
        raise MiradaError(f"The model {model.architecture!r} has no classification head: train one first.")
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
