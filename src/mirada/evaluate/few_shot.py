"""Few-shot: what a model tells apart after one, two, five or ten images of each class.

The classifier is the nearest class mean of centred features on the unit sphere (SimpleShot, arXiv:1911.04623, CL2N): it
has nothing to tune, and with a handful of images there is nothing to tune by, where logistic regression would need its
penalty chosen. An episode sees its own images only: even the centre is theirs.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.evaluate.accuracy import shares_right, wilson_interval
from mirada.evaluate.features import Labelled

__all__ = ["EPISODES", "SHOTS", "few_shot", "few_shot_interval", "nearest_mean", "possible_shots"]

SHOTS = (1, 2, 5, 10)
EPISODES = 20
STUDENT = 2.093  # the 97.5% quantile of Student's t with EPISODES - 1 degrees of freedom
AT_ONCE = 1 << 24  # distances held at a time


def few_shot(
    known: Labelled, asked: Labelled, *, shots: Sequence[int] = SHOTS, episodes: int = EPISODES, seed: int = 0
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """("K-shot/accuracy", mean over the episodes) and ("K-shot/std", their standard deviation) for those of `shots` for
    which every class of `known` has enough images; then ("accuracy", the mean for the last of these).

    An episode draws K images of each class from `known`, without putting back, by `seed`, K and its number. All of
    `asked` is measured in each.
    """
    members = _members(known.labels)
    mean = 0.0
    for count in possible_shots(known.labels, shots):
        found = []
        for episode in range(episodes):
            random = np.random.default_rng([seed, count, episode])
            chosen = torch.from_numpy(np.stack([random.choice(rows, count, replace=False) for rows in members]))
            said = nearest_mean(known.features[chosen], asked.features)
            labels = known.labels[chosen[:, 0]][said]
            found.append(dict(shares_right(labels, asked.labels))["accuracy"])
        mean = float(np.mean(found))
        yield f"{count}-shot/accuracy", mean
        yield f"{count}-shot/std", float(np.std(found, ddof=1)) if episodes > 1 else 0.0
    yield "accuracy", mean


def few_shot_interval(metrics: dict[str, float], count: int) -> tuple[float, float]:
    """The 95% interval of "accuracy" among what `few_shot` gives: other images might have been asked of, which were
    `count`, and others taught, in each episode. Both variances add up."""
    mean = metrics["accuracy"]
    last = [value for name, value in metrics.items() if name.endswith("/std")][-1]
    low, high = wilson_interval(mean, count)
    taught = STUDENT * last / EPISODES**0.5
    return max(0.0, mean - math.hypot(mean - low, taught)), min(1.0, mean + math.hypot(high - mean, taught))


def possible_shots(labels: Tensor, shots: Sequence[int] = SHOTS) -> list[int]:
    """Those of `shots` for which every class among `labels` has enough images."""
    fewest = min(len(rows) for rows in _members(labels))
    return [count for count in shots if count <= fewest]


def nearest_mean(support: Tensor, asked: Tensor) -> Tensor:
    """Which of C classes' means is nearest to each of `asked` (M, D), int64 (M,); `support` (C, K, D) has K of each.

    Distances are Euclidean, after the mean of all of `support` is taken away and lengths are made 1.
    """
    centre = support.mean((0, 1))
    means = F.normalize(support - centre, dim=-1).mean(1)
    parts = torch.split(asked, max(1, AT_ONCE // len(means)))
    half = means.square().sum(1) / 2  # |a - m|^2 / 2 without what is the same for all means
    return torch.cat([(F.normalize(part - centre, dim=1) @ means.mT - half).argmax(1) for part in parts])


def _members(labels: Tensor) -> list[np.ndarray]:
    """The rows of each class that occurs."""
    values = labels.numpy()
    order = np.argsort(values, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
