"""Zero-shot classification (Radford et al. 2021, arXiv:2103.00020, section 3.1): each image gets the class whose words
are nearest, and nothing is trained."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.data.images import Progress
from mirada.errors import MiradaError
from mirada.evaluate.accuracy import shares_right
from mirada.evaluate.features import Labelled
from mirada.model import Model
from mirada.zero_shot import Label, class_vectors, probabilities

__all__ = ["calibration_error", "named", "zero_shot"]

BINS = 15


def zero_shot(
    model: Model, asked: Labelled, labels: Sequence[Label], templates: Sequence[str], *,
    on_progress: Progress | None = None,
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """("accuracy", share right), ("balanced_accuracy", mean over classes), ("top5_accuracy", share among the first
    five) with more than five classes, and ("calibration_error", see there) of the features `asked`."""
    vectors = class_vectors(model, labels, templates, on_progress=on_progress)
    shares = probabilities(model, F.normalize(asked.features, dim=1), vectors)
    yield from shares_right(shares.argmax(1), asked.labels)
    if len(labels) > 5:
        yield "top5_accuracy", float((shares.topk(5, 1).indices == asked.labels[:, None]).any(1).double().mean())
    yield "calibration_error", calibration_error(shares, asked.labels)


def calibration_error(shares: Tensor, labels: Tensor) -> float:
    """How far confidence is from accuracy, on average: of images in bins of like confidence, the difference between
    their mean confidence and the share of them that is right (Guo et al. 2017, arXiv:1706.04599, equation 3)."""
    confidence, said = shares.double().max(1)
    right = (said == labels).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gap = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, confidence - right)
    return float(gap.abs().sum() / len(labels))


def named(labels: Sequence[Label], classes: Sequence[str]) -> list[Label]:
    """The labels in the order of the classes they name. Raises `MiradaError` for a class that has no label."""
    known = {name.casefold(): label for label in labels for name in (label.name, *label.synonyms)}
    if unknown := [name for name in classes if name.casefold() not in known]:
        raise MiradaError(f"The labels have no word for the class {unknown[0]!r}: add a line that begins with it.")
    return [known[name.casefold()] for name in classes]
