"""A map: like pictures lie near each other on a plane.

Principal components, then t-SNE (van der Maaten and Hinton 2008, JMLR 9:2579) of some pictures; every other one goes
between those that it is most like, because t-SNE of all would take hours.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["places"]

ANCHORS = 2000
COMPONENTS = 50
NEAREST = 5
AT_ONCE = 4096


def places(vectors: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Coordinates (n, 2) from -1 to 1 of vectors (n, D). The same seed gives the same map."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(vectors)
    if count < 4:
        return np.stack([np.linspace(-1, 1, count), np.zeros(count)], 1).astype(np.float32)
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:ANCHORS])
    anchors = vectors[chosen]
    few = PCA(min(COMPONENTS, *anchors.shape), random_state=seed).fit_transform(anchors)
    perplexity = min(30.0, (len(anchors) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(few).astype(np.float32)
    found = np.empty((count, 2), np.float32)
    for start in range(0, count, AT_ONCE):
        similarity = vectors[start : start + AT_ONCE] @ anchors.T
        nearest = np.argpartition(-similarity, min(NEAREST, len(anchors)) - 1, 1)[:, :NEAREST]
        weights = np.take_along_axis(similarity, nearest, 1)
        weights = np.exp(20 * (weights - weights.max(1, keepdims=True)))
        found[start : start + AT_ONCE] = (weights[:, :, None] * plane[nearest]).sum(1) / weights.sum(1)[:, None]
    found[chosen] = plane
    low, high = found.min(0), found.max(0)
    unit: NDArray[np.float32] = 2 * (found - low) / np.maximum(high - low, 1e-12) - 1
    return unit
