"""Labels for pictures: what `mirada classify` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mirada.data.images import Progress
from mirada.data.sources import list_images
from mirada.errors import MiradaError
from mirada.evaluate.predict import evaluation_images, predict
from mirada.loading import load

__all__ = ["classify"]


def classify(
    ref: str, paths: Sequence[str | Path], *, top: int = 5, device: str = "cpu", exact_pixels: bool = False,
    on_progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:  # fmt: skip
    """[{"path", "labels": [{"label", "score"}, ...]}, ...] with the likeliest first, and the files that could not be
    read as [{"path", "reason"}, ...]. Scores are probabilities over the model's classes. Large JPEGs are decoded at a
    reduced size unless `exact_pixels`: see `mirada.evaluate.predict.evaluation_images`.

    Raises `MiradaError` for a model without a head, a path that does not exist, or when no file is an image.
    """
    source = list_images(paths)
    model = load(ref, device=device, on_progress=on_progress)
    if model.classes is None:
        raise MiradaError(f"The model {ref!r} has no classification head: train one with `mirada train`.")
    images = evaluation_images(model, source, exact_pixels=exact_pixels, keep=False)
    found = predict(model, images, batch=64, on_progress=on_progress)
    scores, labels = found.logits.softmax(1).topk(min(top, len(model.classes)))
    rows = zip(found.places.tolist(), scores.tolist(), labels.tolist(), strict=True)
    answers = [
        {
            "path": source.path(place),
            "labels": [{"label": model.classes[label], "score": round(score, 6)}
                       for score, label in zip(row, chosen, strict=True)],
        }
        for place, row, chosen in rows
    ]  # fmt: skip
    return answers, images.skipped_files()
