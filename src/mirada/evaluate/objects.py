"""Objects found without labels, beside masks of where they are: what the patches of a model know of shapes.

Everything is measured on the pixels that the model sees: image and mask are resized and cut alike. For each image:

- jaccard: intersection over union of the found mask and the true one.
- corloc: whether the box of what was found overlaps a true box by more than half (intersection over union). Found is
  the connected part around the seed. True boxes are the one around the whole mask and those around its connected parts.
- max_f: F = (1 + β²) P R / (β² P + R), β² = 0.3, of precision P and recall R of the score cut at each of 255
  thresholds from 1/255 to 1.

Of each the mean over the images is told, of F that of the threshold with the largest mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirada.errors import MiradaError
from mirada.inspect.objects.attention_masks import attention_masks
from mirada.inspect.objects.boxes import Box, box, boxes, component, overlap, to_pixels
from mirada.inspect.objects.lost import lost
from mirada.inspect.objects.mask_cut import mask_cut
from mirada.inspect.objects.patches import Found, Seen, nothing, stretched
from mirada.inspect.objects.refine import refine
from mirada.inspect.objects.token_cut import token_cut

__all__ = ["METHODS", "CentrePrior", "Tally", "found_by", "jaccard", "judge", "mean_interval"]

METHODS = ("token-cut", "lost", "attention", "mask-cut")
BETA_SQUARED = 0.3


@dataclass
class Tally:
    """The scores of one way to find objects, image by image."""

    jaccard: list[float] = field(default_factory=list)
    located: list[bool] = field(default_factory=list)
    f: NDArray[np.float64] = field(default_factory=lambda: np.zeros(255))  # summed over images, at each threshold

    def add(self, mask: Tensor, score: Tensor, found: Box | None, truth: Tensor, true_boxes: Sequence[Box]) -> None:
        """One image: a mask (height, width) and a score in [0, 1], the box, and what is true."""
        self.jaccard.append(jaccard(mask, truth))
        self.located.append(is_located(found, true_boxes))
        self.f += f_scores(score, truth)

    def metrics(self) -> Iterator[tuple[str, float]]:
        """("jaccard", ...), ("max_f", ...), ("corloc", ...)."""
        yield "jaccard", float(np.mean(self.jaccard))
        yield "max_f", float(self.f.max() / len(self.jaccard))
        yield "corloc", float(np.mean(self.located))


class CentrePrior:
    """What is found without looking: a box in the middle, as the image is shaped.

    The hardest form of it to beat: its size, of twenty, is the one with the best mean jaccard on these very masks.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = size
        rows = ((torch.arange(height) + 0.5) / height * 2 - 1).abs()
        columns = ((torch.arange(width) + 0.5) / width * 2 - 1).abs()
        reach = torch.maximum(rows[:, None], columns)  # 0 in the middle, 1 at the border
        self.score = 1 - reach
        self.masks = [mask for share in np.linspace(0.05, 1, 20) if bool((mask := reach <= share).any())]
        self.tallies = [Tally() for _ in self.masks]
        self.f = np.zeros(255)

    def add(self, truth: Tensor) -> None:
        """One image, by its mask."""
        true_boxes = boxes_of(truth)
        for mask, tally in zip(self.masks, self.tallies, strict=True):
            tally.jaccard.append(jaccard(mask, truth))
            tally.located.append(is_located(box(mask), true_boxes))
        self.f += f_scores(self.score, truth)

    def best(self) -> Tally:
        """That of the best size."""
        best = max(self.tallies, key=lambda tally: float(np.mean(tally.jaccard)))
        return replace(best, f=self.f)


def judge(
    tallies: dict[str, Tally], seen: Seen, pixels: Tensor, truths: Sequence[Tensor], methods: Sequence[str],
    refined: bool,
) -> None:  # fmt: skip
    """Add to the tally of each method what it finds in images (B, 3, height, width), uint8, whose masks are `truths`.

    Of attention the head is chosen that fits the true mask best, as in the paper (figure 4): its numbers are those of
    somebody who knows the answer.
    """
    size = (pixels.shape[-2], pixels.shape[-1])
    for number, truth in enumerate(truths):
        true_boxes = boxes_of(truth)
        for method in methods:
            several = found_by(method, seen, number, size, truth)
            mask = torch.stack([one.mask for one in several]).any(0)
            score = torch.stack([one.score for one in several]).amax(0)
            large, smooth = to_pixels(mask, size), to_pixels(score, size)
            first = to_pixels(component(several[0].mask, several[0].seed), size)
            if refined:
                image = pixels[number].float() / 255
                radius = max(1, size[0] // mask.shape[0])
                smooth, first = refine(large, image, radius), refine(first, image, radius) > 0.5
                large = smooth > 0.5
            tallies[method].add(large, smooth, box(first), truth, true_boxes)


def found_by(method: str, seen: Seen, number: int, size: tuple[int, int], truth: Tensor) -> list[Found]:
    """What a method finds in one of the images: one object, or with "mask-cut" several, the most prominent first."""
    features = seen.features[number]
    match method:
        case "token-cut":
            return [token_cut(features)]
        case "lost":
            return [lost(features)]
        case "mask-cut":
            return mask_cut(features) or [nothing(*features.shape[:2])]
    if seen.attention is None:
        raise MiradaError("This model has no attention: use the method token-cut, lost or mask-cut, which need none.")
    attention = seen.attention[number].cpu()
    masks = attention_masks(attention)
    best = max(range(len(masks)), key=lambda head: jaccard(to_pixels(masks[head], size), truth))
    row, column = divmod(int(attention[best].argmax()), attention.shape[-1])
    return [Found(masks[best], stretched(attention[best]), (row, column))]


def boxes_of(truth: Tensor) -> list[Box]:
    """The boxes that count as right: around the whole mask, which is not empty, and around each connected part."""
    whole = box(truth)
    return boxes(truth) if whole is None else [whole, *boxes(truth)]


def is_located(found: Box | None, true_boxes: Sequence[Box]) -> bool:
    """Whether a box overlaps any true one by more than half."""
    return found is not None and any(overlap(found, one) > 0.5 for one in true_boxes)


def jaccard(mask: Tensor, truth: Tensor) -> float:
    """Intersection over union of two masks, of which the true one is not empty."""
    return float((mask & truth).sum() / (mask | truth).sum())


def f_scores(score: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """F (255,) of a score (height, width) in [0, 1], cut at 1/255, 2/255, ... 1: what is as large is found."""
    steps = (score * 255).floor().clamp(0, 255).long()
    right = torch.bincount(steps[truth], minlength=256).flip(0).cumsum(0).flip(0)[1:].double().numpy()
    found = torch.bincount(steps.flatten(), minlength=256).flip(0).cumsum(0).flip(0)[1:].double().numpy()
    # P = right / found and R = right / true, so that F is this, and 0 where nothing is found
    values: NDArray[np.float64] = (1 + BETA_SQUARED) * right / (BETA_SQUARED * float(truth.sum()) + found)
    return values


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of a mean of values in [0, 1]: 1.96 standard errors to both sides, as far as there are means."""
    if len(values) < 2:
        return 0.0, 1.0
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    return max(0.0, mean - 1.96 * error), min(1.0, mean + 1.96 * error)
