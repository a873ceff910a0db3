"""TokenCut: a normalised cut of the graph of patches (Wang et al. 2022, arXiv:2202.11539)."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor
from torch.nn import functional as F

from mirada.inspect.objects.patches import Found, links, nothing, stretched

__all__ = ["second_eigenvector", "token_cut"]

SMALL = 32  # patches up to which all eigenvectors cost nothing
KEPT = 10  # Lanczos vectors: with more, keeping them orthogonal takes longer than it saves products


def token_cut(features: Tensor, threshold: float = 0.2, epsilon: float = 1e-5) -> Found:
    """The object among the patches of one image (section 3.2), features (H, W, D).

    Patches whose cosine is at least `threshold` are linked by 1, all others by `epsilon`. The graph is cut where the
    eigenvector y of the second smallest eigenvalue of (D - E) y = λ D y crosses its mean; the part with the largest
    |y| is the object. The score is y, its sign so that the object's is high, stretched. Where no two patches, or all,
    are linked, there is no object.
    """
    height, width, _ = features.shape
    unit = F.normalize(features.flatten(0, 1).cpu().float(), dim=1)
    linked = links(unit @ unit.mT, threshold)
    if linked is None:
        return nothing(height, width)
    y = torch.from_numpy(second_eigenvector(np.where(linked.numpy(), 1.0, epsilon)))
    seed = int(y.abs().argmax())
    y = y * y[seed].sign()
    return Found((y > y.mean()).view(height, width), stretched(y).view(height, width), divmod(seed, width))


def second_eigenvector(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eigenvector (N,) of the second smallest eigenvalue of (D - E) y = λ D y, for weights E (N, N) above 0,
    symmetric, and D the diagonal of their sums.

    With z = D^½ y this is the second largest of D^-½ E D^-½, whose eigenvalues are from -1 to 1. The largest, 1, has a
    known eigenvector, D^½ 1: taken away twice, which makes it -1, it leaves the one that is wanted in front, and
    Lanczos' method finds that by a few dozen products.
    """
    root = np.sqrt(weights.sum(1))
    first = root / np.linalg.norm(root)
    matrix = weights / root[:, None] / root - 2 * np.outer(first, first)
    count = len(matrix)
    if count > SMALL:
        start = np.random.default_rng(0).standard_normal(count)  # the same each time
        try:
            vectors = eigsh(matrix, 1, which="LA", v0=start, ncv=KEPT, tol=1e-8)[1]
            return np.asarray(vectors[:, 0] / root)
        except ArpackError:  # no convergence: two eigenvalues are nearly one
            pass
    return np.asarray(eigh(matrix, subset_by_index=[count - 1, count - 1])[1][:, 0] / root)
