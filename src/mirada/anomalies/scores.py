"""How well scores tell the anomalous from the normal: AUROC with its interval, and AUPRO."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score

__all__ = ["LIMIT", "aupro", "auroc", "auroc_interval"]

LIMIT = 0.3  # the share of normal pixels that AUPRO looks up to
Z = 1.959964


def auroc(scores: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> float:
    """The probability that an anomaly scores above a normal one, ties counting half: scores (n,), truth (n,), of which
    there are both kinds."""
    return float(roc_auc_score(anomalous, scores))


def auroc_interval(area: float, anomalous: int, normal: int) -> tuple[float, float]:
    """The 95% interval of an AUROC of so many images (Newcombe 2006, Statistics in Medicine 25, method 5): the areas A
    that are not farther from it than 1.96 standard errors at A. It is sound for an area of 1, too."""
    extra = (anomalous + normal) / 2 - 1

    def beyond(true: float) -> float:
        variance = true * (1 - true) * (1 + extra * (1 - true) / (2 - true) + extra * true / (1 + true))
        return float((area - true) ** 2 - Z**2 * variance / (anomalous * normal))

    tiny = 1e-12
    low = brentq(beyond, tiny, area - tiny) if area > 2 * tiny and beyond(tiny) > 0 else 0.0
    high = brentq(beyond, area + tiny, 1 - tiny) if area < 1 - 2 * tiny and beyond(1 - tiny) > 0 else 1.0
    return float(low), float(high)


def aupro(
    maps: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.bool_]], limit: float = LIMIT
) -> float:  # fmt: skip
    """Area under the per-region overlap (Bergmann et al. 2019, arXiv:1911.02357): the mean share of each connected
    defect that is found, over the share of normal pixels that is found too, up to `limit`; in [0, 1].

    Of score maps (height, width) and masks alike, which mark something, but not all, between them. A region hangs
    together corner to corner too; pixels of one score are found together.
    """
    weights = []
    regions = 0
    for truth in truths:
        numbered, count = ndimage.label(truth, structure=np.ones((3, 3)))
        sizes = np.bincount(numbered.ravel(), minlength=count + 1)
        sizes[0] = 1
        weights.append(np.where(truth, 1 / sizes[numbered], 0).ravel())
        regions += count
    scores = np.concatenate([one.ravel() for one in maps])
    weight = np.concatenate(weights)
    normal = ~np.concatenate([truth.ravel() for truth in truths])
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each run of equal scores
    found = np.append(0, np.cumsum(weight[order])[last] / regions)
    wrong = np.append(0, np.cumsum(normal[order])[last] / normal.sum())
    inside = wrong <= limit
    x, y = np.append(wrong[inside], limit), np.append(found[inside], np.interp(limit, wrong, found))
    return float(min(1.0, np.trapezoid(y, x) / limit))
