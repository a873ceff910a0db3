"""Supervised classification, as transformers are trained today (Touvron et al. 2021, arXiv:2012.12877)."""

from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mirada.data.augment import Augmentation, augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Encoder, Objective
from mirada.processes import processes, summed

__all__ = ["Supervised"]


def views(samples: Samples, transform: Augmentation, classes: int, mixup: float, cutmix: float) -> dict[str, Tensor]:
    """The image, its label (-1: none) and, when images are mixed, the share of each class in it."""
    image, label = samples.view(transform), samples.labels
    if not mixup and not cutmix:
        return {"image": image, "label": label}
    image, target = mix(image, one_hot(label, classes), mixup, cutmix, samples.generator)
    return {"image": image, "label": label, "target": target}


def one_hot(label: Tensor, classes: int) -> Tensor:
    """(B, C) float; a row of zeros where there is no label."""
    return (label[:, None] == torch.arange(classes, device=label.device)).float()


def mix(image: Tensor, target: Tensor, mixup: float, cutmix: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blend each image with another of the batch (mixup, Zhang et al. 2017, arXiv:1710.09412) or paste a box of it
    (CutMix, Yun et al. 2019, arXiv:1905.04899): by a coin's toss per batch when both are on. The arguments are the
    alphas of the Beta distribution that the share is drawn from; 0 is off. Images without a label stay themselves."""
    use_cutmix = cutmix > 0 and (mixup == 0 or float(torch.rand((), generator=generator)) < 0.5)
    alpha = cutmix if use_cutmix else mixup
    gamma = torch._standard_gamma(torch.full((2,), alpha), generator=generator)
    share = float(gamma[0] / gamma.sum().clamp(min=1e-12))
    labelled = target.sum(1).nonzero()[:, 0]
    other = torch.arange(len(image), device=target.device)
    other[labelled] = labelled[torch.randperm(len(labelled), generator=generator).to(target.device)]
    other = other.to(image.device)
    if use_cutmix:
        height, width = image.shape[-2:]
        tall, wide = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
        top = int(torch.randint(height - tall + 1, (), generator=generator))
        left = int(torch.randint(width - wide + 1, (), generator=generator))
        image = image.clone()
        image[:, :, top : top + tall, left : left + wide] = image[other, :, top : top + tall, left : left + wide]
        share = 1 - tall * wide / (height * width)
    else:
        image = share * image + (1 - share) * image[other]
    return image, share * target + (1 - share) * target[other]


class Supervised(Objective):
    """Cross-entropy over known classes; samples without a label take no part.

    Args:
        classes: number of classes.
        augment: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567).
        mixup, cutmix: see `mix`; 0 is off.
        counts: images per class of the training split, which say what guessing is worth; with `balanced`, classes are
            weighted by the inverse.
        balanced: give every class the same say in the loss.
    """

    pooled = ("image",)

    def __init__(
        self, backbone: Encoder, *, classes: int, augment: str | dict[str, Any] | Augmentation = "light",
        smoothing: float = 0.1, mixup: float = 0.0, cutmix: float = 0.0, counts: list[int] | None = None,
        balanced: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if min(mixup, cutmix) < 0:
            raise MiradaError(f"mixup and cutmix cannot be {min(mixup, cutmix)}: use 0 for off, or a number above it.")
        if classes < 2:
            raise MiradaError(f"Supervised training needs two classes or more, and there is {classes}.")
        if counts is not None and len(counts) != classes:
            raise MiradaError(f"The data have {len(counts)} classes, and supervised is told of {classes}: leave "
                              "classes out.")  # fmt: skip
        self.classes, self.smoothing = classes, smoothing
        transform = augmentation(augment)
        self.views = partial(views, transform=transform, classes=classes, mixup=mixup, cutmix=cutmix)
        self.head = nn.Linear(backbone.dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        weight = torch.ones(classes)
        if balanced and counts is not None:
            weight = 1 / torch.tensor(counts, dtype=torch.float32).clamp(min=1)
            weight *= classes / weight.sum()
        self.register_buffer("class_weight", weight, persistent=False)
        known = torch.ones(classes) if counts is None else torch.tensor(counts, dtype=torch.float32)
        guess = weight * known
        guess = ((1 - smoothing) * guess / guess.sum().clamp(min=1e-9) + smoothing / classes).clamp(min=1e-9)
        self.register_buffer("guess", (guess / guess.sum()).log(), persistent=False)

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        logits = self.head(backbone.pooled(batch["image"])).float()
        label = batch["label"].to(logits.device)
        target = batch.get("target")
        target = one_hot(label, self.classes) if target is None else target.to(logits.device)
        share = target.sum(1, keepdim=True)  # 1, or 0 where there is no label
        # Smoothed after it is weighted, or else a rare class would be taught where it is not.
        weighted = target * self.get_buffer("class_weight")
        say = weighted.sum(1, keepdim=True)
        weighted = weighted * (1 - self.smoothing) + say * self.smoothing / self.classes
        right = (logits.argmax(1) == label).float() * share[:, 0]
        chance = -(weighted * self.get_buffer("guess")).sum()
        said = -(weighted * F.log_softmax(logits, 1)).sum()
        # Over all processes, so that every labelled image has the same say.
        sums = summed(torch.stack([weighted.sum(), said, chance, right.sum(), share.sum()]))
        loss = said * processes() / sums[0].clamp(min=1e-6)
        if not bool(sums[4]):  # of nothing there is no accuracy
            return {"loss": loss}
        return {"loss": loss, "relative_loss": sums[1] / sums[2].clamp(min=1e-6), "accuracy": sums[3] / sums[4]}
