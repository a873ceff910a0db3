"""AUROC and AUPRO against slow loops of their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from mirada.anomalies.scores import aupro, auroc, auroc_interval

LISTS = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({truth for _, truth in rows}) == 2
)


@given(LISTS)
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([score for score, _ in rows], float), np.array([one for _, one in rows])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    area = auroc(scores, truth)
    assert area == pytest.approx(float(np.mean(pairs)))
    assert 0 <= area <= 1
    assert auroc(np.exp(scores) + 3, truth) == pytest.approx(area)  # only the order counts
    assert auroc(-scores, truth) == pytest.approx(1 - area)
    count = int(truth.sum())
    low, high = auroc_interval(area, count, len(truth) - count)
    assert 0 <= low <= area <= high <= 1
    assert high - low > 0


def test_the_interval_covers_and_narrows() -> None:
    """Of scores that are normal, shifted by one for anomalies: the true area is Phi(1 / sqrt(2)) = 0.7602."""
    random = np.random.default_rng(0)
    truth = np.arange(50) < 20
    inside = 0
    for _ in range(400):
        area = auroc(random.normal(size=50) + truth, truth)
        low, high = auroc_interval(area, 20, 30)
        inside += low <= 0.7602 <= high
    assert 0.92 < inside / 400 <= 0.99
    widths = [np.diff(auroc_interval(0.8, count, count))[0] for count in (5, 50, 500)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert auroc_interval(1.0, 10, 10)[0] < 0.9


def slow_aupro(maps: list[NDArray[np.float64]], truths: list[NDArray[np.bool_]], limit: float = 0.3) -> float:
    """The curve point by point, and the area under it by very fine steps."""
    thresholds = sorted({float(value) for one in maps for value in one.ravel()}, reverse=True)
    wrong, found = [0.0], [0.0]
    for threshold in thresholds:
        overlaps = []
        for one, truth in zip(maps, truths, strict=True):
            numbered, count = ndimage.label(truth, structure=np.ones((3, 3)))
            overlaps += [float((one[numbered == region] >= threshold).mean()) for region in range(1, count + 1)]
        normal = [one[~truth] >= threshold for one, truth in zip(maps, truths, strict=True)]
        wrong.append(float(np.concatenate(normal).mean()))
        found.append(float(np.mean(overlaps)))
    grid = np.linspace(0, limit, 200_001)
    return float(np.interp(grid, wrong, found).mean())


@pytest.mark.parametrize("levels", [3, 1000])
def test_aupro_is_the_papers(levels: int) -> None:
    random = np.random.default_rng(levels)
    truths = [np.zeros((8, 9), np.bool_) for _ in range(3)]
    truths[0][1:3, 1:4] = truths[0][6, 7] = True
    truths[1][2, 2] = truths[1][3, 3] = True  # one region, corner to corner
    maps = [random.integers(0, levels, truth.shape) + levels / 3 * truth for truth in truths]
    assert aupro(maps, truths) == pytest.approx(slow_aupro(maps, truths), abs=1e-3)
    assert aupro([np.exp(one / levels) for one in maps], truths) == pytest.approx(aupro(maps, truths))


def test_aupro_of_the_best_the_worst_and_the_ignorant() -> None:
    truth = np.zeros((10, 10), np.bool_)
    truth[2:4, 2:4] = True
    assert aupro([truth.astype(float)], [truth]) == 1
    assert aupro([-truth.astype(float)], [truth]) == pytest.approx(0)
    assert aupro([np.ones((10, 10))], [truth]) == pytest.approx(0.15)  # the diagonal
