"""Groups of pictures that are the same one: scaled, compressed again, brightened, or copied.

Two pictures are near-duplicates when both their perceptual hashes and their vectors are nearly equal: a hash alone
finds two flat drawings equal, a vector alone two photographs of one thing. What counts as nearly equal is taken from
pairs of strangers, since hashes of drawings lie nearer together than those of photographs, and vectors of a weak model
nearer than those of a strong one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["duplicate_groups", "hamming"]

BITS_APART = (4, 12)  # of 64: at most as few as one in 2,000 pairs of strangers has, within this range
COSINE = (0.8, 0.995)  # at least as much as one in 1,000 pairs of strangers has, within this range
BANDS, SHUFFLES = 4, 16  # of 16 bits: pairs that share a band, in one of so many orders of the bits, are compared
CROWD = 64  # pictures with one band, beyond which each is compared with so many after it only
PAIRS = 20_000
AT_ONCE = 1 << 16  # pairs whose vectors are held
_ONES = np.unpackbits(np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)


def duplicate_groups(hashes: NDArray[np.int64], vectors: NDArray[np.floating[Any]]) -> list[list[int]]:
    """Groups of two or more places of near-duplicates, the largest first. Hashes (n,), unit vectors (n, D).

    Two hashes that differ in 3 bits or less always share a band of 16; with more, they do so in one of the orders of
    bits with a chance of 99% at 8 bits and 80% at 12.
    """
    count = len(hashes)
    if count < 2:
        return []
    draw = np.random.default_rng(0)
    one, other = draw.integers(count, size=(2, PAIRS))
    one, other = one[one != other], other[one != other]
    copies = 1 / (count - 1)  # of all pairs, if each picture has one: those are no strangers
    rare, seldom = (min(0.5, share + copies) for share in (1 / 2000, 1 / 1000))
    most = np.clip(np.quantile(hamming(hashes[one], hashes[other]), rare), *BITS_APART)
    least = np.clip(np.quantile(_cosines(vectors, one, other), 1 - seldom), *COSINE)
    first, second = _close(hashes, most, draw)
    same = _cosines(vectors, first, second) >= least
    return _joined(count, first[same], second[same])


def _cosines(
    vectors: NDArray[np.floating[Any]], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Of pairs of places (p,), some at a time: many like pictures make millions of pairs."""
    cosines = np.empty(len(first), np.float32)
    for start in range(0, len(first), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        one, other = (vectors[places[some]].astype(np.float32) for places in (first, second))
        cosines[some] = np.einsum("nd,nd->n", one, other)
    return cosines


def hamming(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """In how many bits they differ."""
    different = np.ascontiguousarray(first ^ second).view(np.uint16).reshape(-1, 4)
    counts: NDArray[np.int64] = _ONES[different].sum(1, dtype=np.int64)
    return counts


def _close(
    hashes: NDArray[np.int64], most: float, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of places whose hashes share a band and differ in no more bits than `most`."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8), axis=1)
    count = len(hashes)
    known = np.empty(0, np.int64)  # first * count + second
    for shuffle in range(SHUFFLES):
        order = np.arange(64) if shuffle == 0 else draw.permutation(64)
        found: list[NDArray[np.int64]] = []
        bands = np.ascontiguousarray(np.packbits(bits[:, order], axis=1)).view(np.uint16)  # (n, BANDS)
        for band in range(BANDS):
            sorted_places = np.argsort(bands[:, band], kind="stable")
            values = bands[sorted_places, band]
            for step in range(1, CROWD):
                equal = values[step:] == values[:-step]
                if not equal.any():
                    break
                pairs = np.stack([sorted_places[:-step][equal], sorted_places[step:][equal]])
                pairs = np.sort(pairs[:, hamming(*hashes[pairs]) <= most], axis=0)
                found.append(pairs[0] * count + pairs[1])
        known = np.unique(np.concatenate([known, *found]))
    return known // count, known % count


def _joined(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> list[list[int]]:
    """Places that pairs connect."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.cumsum(sizes)[:-1])
    several = [group.tolist() for group in groups if len(group) > 1]
    return sorted(several, key=lambda group: (-len(group), group[0]))
