"""Heaps of like pictures, named by the words that set each apart."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Heap", "heaps"]

MOST = 40  # heaps
FITTED = 20_000  # vectors that the centres are found with


class Heap(NamedTuple):
    """A cluster.

    Attributes:
        name: a word that no other heap has, or "" without words.
        places: of its pictures, the most typical first.
    """

    name: str
    places: list[int]


def heaps(
    vectors: NDArray[np.float32], words: Sequence[str] = (), word_vectors: NDArray[np.float32] | None = None,
    count: int | None = None, seed: int = 0,
) -> list[Heap]:  # fmt: skip
    """k-means of unit vectors (n, D), the largest heap first.

    A heap's word is the one whose vector is nearest to the heap's centre, after both are compared with the others of
    their kind (words with the mean word, centres with the mean centre), and each word is given once, so that the sum of
    all cosines is largest (an assignment problem).
    """
    from sklearn.cluster import MiniBatchKMeans

    if not len(vectors):
        return []
    if count is None:
        count = min(MOST, max(2, round(math.sqrt(len(vectors) / 2))))
    count = min(count, len(np.unique(vectors, axis=0)))
    fitted = vectors[:: max(1, math.ceil(len(vectors) / FITTED))]
    model = MiniBatchKMeans(min(count, len(fitted)), random_state=seed, n_init=3, batch_size=1024).fit(fitted)
    labels, centres = model.predict(vectors), model.cluster_centers_.astype(np.float32)
    names = _names(centres, words, word_vectors)
    found = []
    for number, centre in enumerate(centres):
        places = np.flatnonzero(labels == number)
        if len(places):
            found.append(Heap(names[number], places[np.argsort(-(vectors[places] @ centre))].tolist()))
    return sorted(found, key=lambda heap: -len(heap.places))


def _names(centres: NDArray[np.float32], words: Sequence[str], vectors: NDArray[np.float32] | None) -> list[str]:
    from scipy.optimize import linear_sum_assignment

    if vectors is None or len(words) < len(centres):
        return [""] * len(centres)
    similarity = _apart(centres) @ _apart(vectors).T
    rows, columns = linear_sum_assignment(-similarity)
    chosen = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [words[chosen[number]] for number in range(len(centres))]


def _apart(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors of what sets each row apart from their mean."""
    apart = rows - rows.mean(0)
    unit: NDArray[np.float32] = apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12)
    return unit
