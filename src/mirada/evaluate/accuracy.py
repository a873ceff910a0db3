"""Accuracy of a trained head, with its confidence interval and what a report needs beside it."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirada.errors import MiradaError
from mirada.evaluate.predict import Predictions

__all__ = ["accuracy", "confusion", "shares_right", "wilson_interval"]


def accuracy(predictions: Predictions) -> Iterator[tuple[str, float]]:
    """("accuracy", share right), ("balanced_accuracy", mean over classes), ("loss", mean cross-entropy).

    Raises `MiradaError` when no image has a label. Images without one are left out.
    """
    labels = torch.from_numpy(predictions.labels)
    known = labels >= 0
    if not bool(known.any()):
        raise MiradaError("None of these images has a label: accuracy needs a folder per class, or a label column.")
    logits, labels = predictions.logits[known], labels[known]
    yield from shares_right(logits.argmax(1), labels)
    yield "loss", float(torch.nn.functional.cross_entropy(logits, labels))


def shares_right(said: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    """("accuracy", share right), ("balanced_accuracy", mean over the classes that occur) of answers `said` (n,)."""
    right = (said == labels).double()
    yield "accuracy", float(right.mean())
    present = np.unique(labels.numpy()).tolist()
    yield "balanced_accuracy", float(np.mean([float(right[labels == label].mean()) for label in present]))


def confusion(predictions: Predictions, classes: int) -> NDArray[np.int64]:
    """Counts (C, C): row is the truth, column what the model said."""
    known = predictions.labels >= 0
    said = predictions.logits.argmax(1).numpy()[known]
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (predictions.labels[known], said), 1)
    return counts


def wilson_interval(right: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share of `count` trials (Wilson 1927): sound for small counts and shares near 0 or 1.

    Of a mean of `count` numbers from 0 to 1 it is at least as wide as need be: none vary more than zeros and ones do.
    """
    centre = (right + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (right * (1 - right) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
