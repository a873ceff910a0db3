"""LOST: an object is what resembles the patch that resembles fewest others (Siméoni et al. 2021, arXiv:2109.14279)."""

from torch import Tensor

from mirada.inspect.objects.patches import Found, links, nothing, stretched

__all__ = ["lost"]


def lost(features: Tensor, most: int | None = None) -> Found:
    """The object among the patches of one image (section 3.2), features (H, W, D).

    Two patches are linked if their product is 0 or more. The seed has the fewest links; the other seeds are those of
    the `most` patches with fewest links that are linked to it; the mask is every patch whose products with all seeds
    sum to 0 or more, which sum, stretched, is the score. `most` is 100 in the paper, of about 700 patches; None takes
    that, or a quarter of the patches if they are fewer. Of patches with equally few links, those come first whose
    products with all others sum to least.
    """
    height, width, _ = features.shape
    flat = features.flatten(0, 1).cpu().double()
    similarity = flat @ flat.mT
    linked = links(similarity, 0.0)
    if linked is None:
        return nothing(height, width)
    by_sum = similarity.sum(1).argsort(stable=True)
    order = by_sum[linked.sum(1)[by_sum].argsort(stable=True)]
    seed = int(order[0])
    fewest = order[: min(100, -(-len(flat) // 4)) if most is None else most]
    seeds = fewest[linked[seed, fewest]]
    total = similarity[:, seeds].sum(1).view(height, width)
    return Found(total >= 0, stretched(total), divmod(seed, width))
