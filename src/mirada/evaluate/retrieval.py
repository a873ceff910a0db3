"""Retrieval by labels: for each image, how far in front those of its class come when all others are ranked by the
cosine of their features. Nothing is trained, and no second split is needed: every image is asked among the others."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.data.images import Progress
from mirada.errors import MiradaError
from mirada.evaluate.features import Labelled

__all__ = ["average_precision", "queries", "retrieval"]

AT_ONCE = 1 << 21  # similarities sorted at a time


def retrieval(images: Labelled, *, on_progress: Progress | None = None) -> Iterator[tuple[str, float]]:
    """("mAP", mean average precision), ("R@1", share whose most similar image is of their class), over `queries`.

    With ties, "R@1" is the share of the tied images that are of the class. Raises `MiradaError` if no class has two
    images.
    """
    rows = queries(images.labels).nonzero()[:, 0]
    if not len(rows):
        raise MiradaError("No two of these images are of one class: retrieval needs classes of two images or more.")
    features = F.normalize(images.features, dim=1)
    found = []
    parts = torch.split(rows, max(1, AT_ONCE // len(features)))
    for part in parts:
        similarity = features[part] @ features.mT
        relevant = images.labels[part, None] == images.labels
        similarity.scatter_(1, part[:, None], -2.0)  # nobody is found by himself: he comes last, and does not count
        relevant.scatter_(1, part[:, None], False)
        similarity = similarity.round(decimals=6)  # equal features are to tie, whatever the rounding of their products
        found.append(torch.stack([average_precision(similarity, relevant), _first(similarity, relevant)]))
        if on_progress is not None:
            on_progress("ranking", len(found), len(parts))
    precision, first = torch.cat(found, 1).mean(1).tolist()
    yield "mAP", precision
    yield "R@1", first


def queries(labels: Tensor) -> Tensor:
    """Which images have another of their class, bool (n,)."""
    return torch.bincount(labels)[labels] > 1


def average_precision(similarity: Tensor, relevant: Tensor) -> Tensor:
    """For each row of `similarity` (Q, N) with `relevant` (Q, N), bool, at least one: float64 (Q,), the precision at
    each relevant image's rank, averaged. Tied images all have the rank of their last, so no order among them counts."""
    similarity, order = similarity.sort(1, descending=True)
    hits = relevant.gather(1, order)
    last = torch.ones_like(hits)
    last[:, :-1] = similarity[:, :-1] != similarity[:, 1:]
    count = similarity.shape[1]
    ranks = torch.arange(1, count + 1).expand(hits.shape)
    end = torch.where(last, ranks, count).flip(1).cummin(1).values.flip(1)  # where the tie ends
    precision = hits.cumsum(1).gather(1, end - 1).double() / end
    return (precision * hits).sum(1) / hits.sum(1)


def _first(similarity: Tensor, relevant: Tensor) -> Tensor:
    """The share of relevant images among the most similar, float64 (Q,)."""
    top = similarity == similarity.amax(1, keepdim=True)
    return (top & relevant).sum(1).double() / top.sum(1)
