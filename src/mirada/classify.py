"""Labels for pictures: what `mirada classify` does."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mirada.data.dataset import Files
from mirada.data.folder import is_image, visible_files
from mirada.data.images import Progress
from mirada.errors import MiradaError
from mirada.evaluate.predict import evaluation_images, predict
from mirada.model import load

__all__ = ["classify"]


def classify(
    ref: str, paths: Sequence[str | Path], *, top: int = 5, device: str = "cpu", on_progress: Progress | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """[{"path", "labels": [{"label", "score"}, ...]}, ...] with the likeliest first, and the files that could not be
    read as [{"path", "reason"}, ...]. Scores are probabilities over the model's classes.

    Raises `MiradaError` for a model without a head, or a path that does not exist.
    """
    model = load(ref, device=device)
    if model.classes is None:
        raise MiradaError(f"The model {ref!r} has no classification head: train one with `mirada train`.")
    source = Files("", listed([os.fspath(path) for path in paths]))
    images = evaluation_images(model, source, keep=False)
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


def listed(paths: Sequence[str]) -> list[str]:
    """The files themselves, and every image below the folders among them. Raises `MiradaError` for one that is not
    there, or a folder without images."""
    files: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = [os.path.join(path, name) for name in visible_files(path) if is_image(name)]
            if not inside:
                raise MiradaError(f"There are no images in {path!r}: give a folder that holds some.")
            files += inside
        elif os.path.exists(path):
            files.append(path)
        else:
            raise MiradaError(f"There is no file {path!r}: check the path.")
    return files
