"""Weighted nearest neighbours on frozen features (Wu et al. 2018, arXiv:1805.01978, section 3.4; DINO's protocol,
arXiv:2104.14294, section 4.1): what a model knows before anything is trained on it."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.evaluate.accuracy import shares_right
from mirada.evaluate.features import Labelled

__all__ = ["knn", "votes"]

AT_ONCE = 1 << 24  # similarities held at a time


def knn(known: Labelled, asked: Labelled, classes: int, *, neighbours: int = 20) -> Iterator[tuple[str, float]]:
    """("accuracy", share right), ("balanced_accuracy", mean over classes) of `asked`, by the votes of `known`."""
    shares = votes(known.features, known.labels, asked.features, classes, neighbours)
    return shares_right(shares.argmax(1), asked.labels)


def votes(
    known: Tensor, labels: Tensor, asked: Tensor, classes: int, neighbours: int = 20, temperature: float = 0.07
) -> Tensor:  # fmt: skip
    """Shares of votes (M, classes) for features `asked` (M, D), by the nearest of `known` (N, D) with `labels` (N,).

    Each neighbour votes for its class with exp(cosine / temperature). With fewer images than neighbours, all vote.
    """
    known, asked = F.normalize(known, dim=1), F.normalize(asked, dim=1)
    shares = []
    for part in torch.split(asked, max(1, AT_ONCE // len(known))):
        similarity, nearest = (part @ known.mT).topk(min(neighbours, len(known)), 1)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()  # what all are divided by cancels
        shares.append(torch.zeros(len(part), classes).scatter_add_(1, labels[nearest], weight / weight.sum(1, True)))
    return torch.cat(shares) if shares else torch.empty(0, classes)
