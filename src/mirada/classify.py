"""Labels for pictures, from a trained head or from words: what `mirada classify` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mirada.data.images import Progress
from mirada.data.sources import list_images
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.predict import evaluation_images, of_all, require_finite, unit_features
from mirada.loading import load
from mirada.model import Model
from mirada.zero_shot import NONE, class_vectors, probabilities, read_labels, vectors_of_nothing
from mirada.zero_shot import templates as read_templates

__all__ = ["classify"]


def classify(
    ref: str, paths: Sequence[str | Path], *, labels: str | None = None, templates: str | None = None,
    threshold: float | None = None, top: int = 5, device: str = "cpu", exact_pixels: bool = False,
    on_progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:  # fmt: skip
    """[{"path", "labels": [{"label", "score"}, ...]}, ...] with the likeliest first; the files that could not be read
    as [{"path", "reason"}, ...]; and notes for a person. Scores are probabilities; that of "none of these" is what the
    labels leave, or, where nothing competes with them, the probability that the likeliest is wrong. Large JPEGs are
    decoded at a reduced size unless `exact_pixels`: see `mirada.evaluate.predict.evaluation_images`.

    Args:
        labels: words or a file of them, for a model with a text tower (see `mirada.zero_shot.read_labels`); None for
            the classes of the model's head.
        templates: what the labels are put into, "en" by default (see `mirada.zero_shot.templates`).
        threshold: where no label is as likely as this, "none of these" comes first.

    Raises:
        MiradaError: a model without a head, or without a text tower where there are labels; a path that does not exist;
            no file that is an image.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise Misuse(f"A threshold of {threshold} is no probability: use one above 0, up to 1.")
    source = list_images(paths)
    model = load(ref, device=device, on_progress=on_progress)
    images = evaluation_images(model, source, exact_pixels=exact_pixels, keep=False)
    notes: list[str] = []
    nothing = None
    if labels is None:
        names = require_head(ref, model)
        if templates is not None:
            raise Misuse("Templates are for words: give --labels, too, or leave --templates out.")
        places, logits = of_all(model.logits, model, images, np.arange(len(images)), 64, "measuring", on_progress)
        require_finite(logits, images.usable[places], model, source)
        shares = logits.softmax(1)
    else:
        words, notes = read_labels(labels)
        names = [label.name for label in words]
        chosen = read_templates(templates or "en")
        vectors = class_vectors(model, words, chosen, on_progress=on_progress)
        nothing = None if threshold is None else vectors_of_nothing(model, chosen)
        places, features = unit_features(model, images, np.arange(len(images)), batch=64, on_progress=on_progress)
        require_finite(features, images.usable[places], model, source)
        shares = probabilities(model, features, vectors, nothing)
    competing = nothing is not None and model.text is not None and model.text.logit_bias is None
    answers = [
        {"path": source.path(int(place)), "labels": ranked(row, names, top, threshold, competing)}
        for place, row in zip(images.usable[places], shares, strict=True)
    ]
    return answers, images.skipped_files(), notes


def require_head(ref: str, model: Model) -> list[str]:
    """The classes of the model's head."""
    if model.classes is None:
        how = "give --labels, which its text tower reads" if model.text else "train one with `mirada train`"
        raise MiradaError(f"The model {ref!r} has no classification head: {how}.")
    return model.classes


def ranked(
    shares: Tensor, names: Sequence[str], top: int, threshold: float | None, competing: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """The likeliest labels of one image, (C,), and before them "none of these" where none reaches the threshold;
    `competing` says whether it took part in the softmax, so that what the shares leave is its own."""
    scores, labels = shares.topk(min(top, len(names)))
    found = [{"label": names[label], "score": round(score, 6)}
             for score, label in zip(scores.tolist(), labels.tolist(), strict=True)]  # fmt: skip
    if threshold is not None and float(scores[0]) < threshold:
        left = 1 - float(shares.sum() if competing else scores[0])
        return [{"label": NONE, "score": round(max(0.0, left), 6)}, *found][:top]
    return found
