"""Label-free health of a network in training, on images that stay the same all through the run."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.evaluate.knn import votes
from mirada.objectives import Learner

__all__ = ["Health", "feature_deviation", "information", "rank_me"]

AT_ONCE = 64  # images in one forward


class Health:
    """What `measure` finds on `images`, normalised (B, 3, H, W), of which some have `labels` (B,), -1 for none."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.image_deviation = float(images.flatten(1).std(0, correction=0).mean())

    @torch.no_grad()
    def measure(self, learner: Learner) -> dict[str, float]:
        """All under "health/": of the features that are evaluated `feature_deviation` and `rank`, with labels `knn`,
        and of each objective that has answers their `<objective>_entropy`, `_information` and `_prototypes`. And
        `image_deviation`, of the normalised pixels. Leaves the learner's mode as it was, and no state moves."""
        was_training = learner.training
        learner.eval()
        try:
            backbone = learner.evaluated()
            features = torch.cat([backbone.pooled(part).float() for part in torch.split(self.images, AT_ONCE)])
            answers = learner.answers(self.images)
        finally:
            learner.train(was_training)
        with torch.autocast(self.images.device.type, enabled=False):
            found = self._numbers(features, answers)
        return {f"health/{name}": value for name, value in found.items()}

    def _numbers(self, features: Tensor, answers: dict[str, Tensor]) -> dict[str, float]:
        found = {"image_deviation": self.image_deviation, "feature_deviation": feature_deviation(features),
                 "rank": rank_me(features)}  # fmt: skip
        for name, shares in answers.items():
            entropy, told = information(shares.float())
            used = torch.unique(shares.argmax(1)).numel() / min(shares.shape)
            found |= {f"{name}_entropy": entropy, f"{name}_information": told, f"{name}_prototypes": used}
        if (agreement := neighbours_agree(features, self.labels)) is not None:
            found["knn"] = agreement
        return found


def feature_deviation(features: Tensor) -> float:
    """How far unit vectors (B, D) spread: sqrt(D) times the mean deviation of a coordinate. 1 where they point
    everywhere alike, 0 where all are the same (Chen and He 2020, arXiv:2011.10566, section 4.1)."""
    unit = F.normalize(features, dim=1)
    return float(unit.std(0, correction=0).mean() * math.sqrt(features.shape[1]))


def rank_me(features: Tensor) -> float:
    """The effective rank of features (B, D): exp of the entropy of their normalised singular values, from 1 to
    min(B, D) (RankMe, Garrido et al. 2022, arXiv:2210.02885, equations 1 and 2)."""
    if not bool(features.isfinite().all()):
        return math.nan
    values = torch.linalg.svdvals(features.cpu())
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.special.entr(shares).sum().exp())


def information(shares: Tensor) -> tuple[float, float]:
    """Of probabilities (B, K), both as shares of the most there can be: the mean entropy of a row, and how much a row
    tells about which image it belongs to, the mean divergence of rows from their mean. The latter is 0 where all
    images get the same answer, whatever that is."""
    count, prototypes = shares.shape
    mean_entropy = torch.special.entr(shares).sum(1).mean()
    entropy_of_mean = torch.special.entr(shares.mean(0)).sum()
    told = (entropy_of_mean - mean_entropy) / math.log(max(2, min(count, prototypes)))
    return float(mean_entropy / math.log(max(2, prototypes))), float(told)


def neighbours_agree(features: Tensor, labels: Tensor, most: int = 20) -> float | None:
    """The share of labelled images that their nearest others name rightly; None where there are too few to tell."""
    known = labels >= 0
    rows, truth = features[known.to(features.device)].cpu(), labels[known].cpu()
    if len(rows) < 2 * most or len(torch.unique(truth)) < 2:
        return None
    right = 0
    for fold in range(10):  # each image is asked about while a tenth of all, itself among it, is left out
        asked = torch.arange(len(rows)) % 10 == fold
        shares = votes(rows[~asked], truth[~asked], rows[asked], int(truth.max()) + 1, most)
        right += int((shares.argmax(1) == truth[asked]).sum())
    return right / len(rows)
