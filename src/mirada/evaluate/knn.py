"""Weighted nearest neighbours on frozen features (Wu et al. 2018, arXiv:1805.01978, section 3.4; DINO's protocol,
arXiv:2104.14294, section 4.1): what a model knows before anything is trained on it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.errors import MiradaError
from mirada.evaluate.predict import Encoded, Predictions

__all__ = ["knn", "votes"]


def knn(known: Encoded, asked: Encoded, classes: int, *, neighbours: int = 20) -> Predictions:
    """Answers for `asked` by the labelled images in `known`; log shares of votes take the place of logits.

    Raises `MiradaError` when no image in `known` has a label.
    """
    labels = torch.from_numpy(known.labels)
    labelled = labels >= 0
    if not bool(labelled.any()):
        raise MiradaError("None of the images to compare with has a label: kNN needs a train split with labels.")
    shares = votes(known.features[labelled], labels[labelled], asked.features, classes, neighbours)
    return Predictions(asked.places, asked.labels, shares.clamp(min=1e-12).log())


def votes(
    known: Tensor, labels: Tensor, asked: Tensor, classes: int, neighbours: int = 20, temperature: float = 0.07
) -> Tensor:  # fmt: skip
    """Shares of votes (M, classes) for features `asked` (M, D), by the nearest of `known` (N, D) with `labels` (N,).

    Each neighbour votes for its class with exp(cosine / temperature). With fewer images than neighbours, all vote.
    """
    known, asked = F.normalize(known, dim=1), F.normalize(asked, dim=1)
    shares = []
    for part in torch.split(asked, 1024):  # N * 1024 similarities at a time
        similarity, nearest = (part @ known.mT).topk(min(neighbours, len(known)), 1)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        shares.append(torch.zeros(len(part), classes).scatter_add_(1, labels[nearest], weight / weight.sum(1, True)))
    return torch.cat(shares) if shares else torch.empty(0, classes)
