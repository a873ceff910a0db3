"""MaskCut: several objects, by cutting again without what was found (Wang et al. 2023, arXiv:2301.11320)."""

import torch
from torch import Tensor

from mirada.inspect.objects.boxes import component
from mirada.inspect.objects.patches import Found
from mirada.inspect.objects.token_cut import token_cut

__all__ = ["mask_cut"]


def mask_cut(features: Tensor, count: int = 3, threshold: float = 0.15) -> list[Found]:
    """Up to `count` objects among the patches of one image (section 3.2), features (H, W, D), in the order found.

    Each is a cut as `token_cut` makes it, of features that are 0 in the objects before it. If the object's part has
    more corners of the image than the other part it is the background, and the parts change places. An object is the
    connected patches around its seed, without those of objects before it; the first that has none left is the last.
    """
    features, found = features.cpu(), []
    left = torch.ones(features.shape[:2], dtype=torch.bool)
    for _ in range(count):
        cut = _outwards(token_cut(features * left[..., None], threshold))
        mask = component(cut.mask, cut.seed) & left
        if not bool(mask.any()):
            break
        found.append(cut._replace(mask=mask))
        left &= ~mask
    return found


def _outwards(cut: Found) -> Found:
    """With the background outside: it has more corners."""
    mask = cut.mask
    if not mask.any() or mask[:: max(1, len(mask) - 1), :: max(1, mask.shape[1] - 1)].float().mean() <= 0.5:
        return cut
    score = 1 - cut.score
    best = int(torch.where(mask, -1.0, score).argmax())
    return Found(~mask, score, divmod(best, mask.shape[1]))
