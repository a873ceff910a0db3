"""Do two layers see the same? Centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414), of all pairs of
layers as in Raghu et al. 2021 (arXiv:2108.08810), in batches without bias (Nguyen et al. 2021, arXiv:2010.15327)."""

import torch
from torch import Tensor

from mirada.errors import MiradaError
from mirada.features import Backbone
from mirada.inspect.receptive_field import convolutions
from mirada.modes import evaluating

__all__ = ["cka", "layer_similarity"]


def cka(first: Tensor, second: Tensor) -> Tensor:
    """Linear CKA of two representations (n, D1) and (n, D2) of the same n things: a number from 0 to 1, the same for
    rotated and for scaled features. 1 where they are alike up to that; not a number where one of them is constant."""
    first, second = (features.double() - features.double().mean(0) for features in (first, second))
    shared = torch.linalg.matrix_norm(first.mT @ second) ** 2
    similarity: Tensor = shared / (
        torch.linalg.matrix_norm(first.mT @ first) * torch.linalg.matrix_norm(second.mT @ second)
    )
    return similarity


@torch.no_grad()
def layer_similarity(
    backbone: Backbone, images: Tensor, other: Backbone | None = None, other_images: Tensor | None = None, *,
    batch: int = 32,
) -> Tensor:  # fmt: skip
    """CKA (L1, L2) between all blocks of a backbone, convolutional ones first, and those of another or of itself.

    A block's representation of an image is all of what it hands on, as in Raghu et al., the class token too. Batches of
    4 images or more are enough, because the estimate has no bias (equation 3 of Nguyen et al.); values a little below 0
    are those of layers that share nothing.

    Args:
        images: normalised, (B, C, height, width), B at least 4.
        other_images: the same images as the other backbone wants them; the same tensor by default.

    Raises:
        MiradaError: fewer than 4 images, or not as many for the other backbone.
    """
    seen = images if other_images is None else other_images
    if len(images) < 4 or len(images) != len(seen):
        raise MiradaError(f"Layers are compared on the same 4 images or more, and these are {len(images)} and "
                          f"{len(seen)}.")  # fmt: skip
    cross: Tensor | None = None
    for part, other_part in zip(whole_parts(images, batch), whole_parts(seen, batch), strict=True):
        mine = kernels(backbone, part)
        theirs = mine if other is None else kernels(other, other_part)
        found = torch.stack(
            [torch.stack([torch.stack([hsic(k, m), hsic(k, k), hsic(m, m)]) for m in theirs]) for k in mine]
        )  # (L1, L2, 3)
        cross = found if cross is None else cross + found
    assert cross is not None
    return (cross[..., 0] / (cross[..., 1] * cross[..., 2]).clamp(min=1e-300).sqrt()).float()


def whole_parts(images: Tensor, batch: int) -> list[Tensor]:
    """Parts of equal size but for one; what is left over and is too small goes into the last part."""
    parts = list(torch.split(images, max(4, batch)))
    if len(parts) > 1 and len(parts[-1]) < 4:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def kernels(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """For each block, the products of all images' representations, float64 (B, B), zero on the diagonal."""

    def products(representation: Tensor) -> Tensor:
        flat = representation.flatten(1)
        flat = (flat.cpu() if flat.device.type == "mps" else flat).double()  # which MPS does not have
        flat = flat - flat.mean(0)  # changes no CKA, and keeps digits
        return (flat @ flat.mT).fill_diagonal_(0)

    with evaluating(backbone):
        patches = backbone.embed(images)
        x = patches.permute(0, 3, 1, 2)
        found = [products(x := block(x)) for block in convolutions(backbone) or ()]
        attending = backbone.encode(patches, probe=lambda layer: products(layer.tokens)).trace
    return [*found, *attending]


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased estimate of two kernels (n, n) with zeros on their diagonals (equation 3)."""
    count = len(first)
    one, two = first.sum(1), second.sum(1)
    trace = (first * second).sum()
    both = one.sum() * two.sum() / ((count - 1) * (count - 2))
    return (trace + both - 2 * (one @ two) / (count - 2)) / (count * (count - 3))
