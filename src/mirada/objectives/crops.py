"""Multi-crop (Caron et al. 2020, arXiv:2006.09882, section 3.2): two large views of an image and several small ones."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mirada.data.augment import Augmentation, augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Views

__all__ = ["across_crops", "across_hidden", "crop_names", "multi_crop", "require_prototypes"]

Distortion = str | dict[str, Any] | Augmentation


def crop_names(small: int) -> tuple[str, ...]:
    """The views' names, large ones first."""
    return "large_0", "large_1", *(f"small_{number}" for number in range(small))


def multi_crop(
    first: Distortion, second: Distortion, small: Distortion, *, count: int, share: float, stride: int
) -> Views:  # fmt: skip
    """A `views` function: crops of the samples' size under `first` and `second`, and `count` crops under `small` whose
    sides are `share` of it, rounded to the backbone's `stride`."""
    if count < 0 or not 0 < share <= 1:
        raise MiradaError(f"There cannot be {count} small crops of {share} of the side: use 0 or more, of 0 to 1.")
    transforms = tuple(augmentation(one) for one in (first, second, small))
    return partial(_views, transforms=transforms, count=count, share=share, stride=stride)


def _views(
    samples: Samples, transforms: tuple[Augmentation, ...], count: int, share: float, stride: int
) -> dict[str, Tensor]:  # fmt: skip
    first, second, small = transforms
    height, width = (max(1, round(share * side / stride)) * stride for side in samples.size)
    crops = [samples.view(first, 0), samples.view(second, 1)]
    crops += [samples.view(small, 2 + number, (height, width)) for number in range(count)]
    return dict(zip(crop_names(count), crops, strict=True))


def require_prototypes(prototypes: int, *temperatures: float) -> None:
    """Raise `MiradaError` where there is nothing to choose between, or a temperature divides nothing."""
    if prototypes < 2:
        raise MiradaError(f"Images cannot be told apart by {prototypes} prototypes: use 2 or more.")
    if min(temperatures) <= 0:
        raise MiradaError(f"A temperature or epsilon of {min(temperatures)} divides nothing: use one above 0, such as "
                          "0.05.")  # fmt: skip


def across_crops(target: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """The mean cross-entropy of the predictions of all crops, log probabilities (V, B, K), with the targets of the
    large ones, probabilities (2, B, K), but for those of the same crop; and what tells of collapse in the targets."""
    with torch.autocast(target.device.type, enabled=False):
        pairs = -torch.einsum("tbk,vbk->tv", target, predicted) / target.shape[1]
    loss = pairs[~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)].mean()
    entropy = torch.special.entr(target).sum(-1).mean()
    used = torch.unique(target.flatten(0, 1).argmax(1)).numel() / target.shape[-1]
    return {
        "loss": loss, "relative_loss": loss.detach() / math.log(target.shape[-1]), "teacher_entropy": entropy,
        "kl": loss.detach() - entropy, "prototypes_used": torch.tensor(used),
    }  # fmt: skip


def across_hidden(target: Tensor, predicted: Tensor, masks: Tensor) -> Tensor:
    """iBOT's loss (Zhou et al. 2021, arXiv:2111.07832, equation 2): the mean cross-entropy of log probabilities (n, K)
    with probabilities (n, K), of the n patches where `masks` (B, H, W) are True. Every image that hides some has the
    same say, however many they are; the mean over images counts those that hide none as 0, as the authors do."""
    per_image = masks.sum((1, 2))
    weight = (1 / per_image.clamp(min=1))[:, None, None].expand_as(masks)[masks]
    return -((target * predicted).sum(1) * weight).sum() / len(masks)
