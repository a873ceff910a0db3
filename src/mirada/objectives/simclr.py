"""SimCLR (Chen et al. 2020, arXiv:2002.05709): two views of one image agree, and all other images differ."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.data.augment import Augmentation, augmentation
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.base import Encoder
from mirada.objectives.contrast import Contrast
from mirada.objectives.heads import projector
from mirada.processes import gathered, processes, rank

__all__ = ["SimCLR", "contrast"]


def views(samples: Samples, transform: Augmentation) -> dict[str, Tensor]:
    """Two independent distortions of each image."""
    return {"first": samples.view(transform, 0), "second": samples.view(transform, 1)}


def contrast(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent (equation 1): logits (2B, 2B) of each row among all others, and the place (2B,) of its partner.

    Rows (B, D) of `first` and `second` are views of the same image and have unit length.
    """
    rows = torch.cat([first, second])
    with torch.autocast(rows.device.type, enabled=False):  # rounding would be divided by the temperature
        logits = rows @ rows.mT / temperature
    logits = logits.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), -torch.inf)
    return logits, torch.arange(len(rows), device=rows.device).roll(len(first))


class SimCLR(Contrast):
    """Contrast between the images of a batch: of all processes together.

    Args:
        distortion: a name of `mirada.data.augment.AUGMENTATIONS`, or a dict of its options. Small images want no blur:
            `{"base": "simclr", "blur": 0}`.
        temperature: of the softmax over similarities; the paper's best is 0.1 for long training, 0.5 for small sets.
        hidden, out: widths of the projection head.
    """

    pooled = ("first", "second")

    def __init__(
        self, backbone: Encoder, *, distortion: str | dict[str, Any] | Augmentation = "simclr",
        temperature: float = 0.2, hidden: int = 512, out: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        if temperature <= 0:
            raise MiradaError(f"A temperature of {temperature} divides nothing: use one above 0, such as 0.2.")
        self.views = partial(views, transform=augmentation(distortion))
        self.temperature = temperature
        self.head = projector(backbone.dim, hidden, out, norm=True)

    def represent(self, backbone: Encoder, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: backbone.pooled(batch[name]) for name in self.pooled}

    def compare(self, samples: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        del progress
        pooled = [samples[name] for name in self.pooled]
        if len(pooled[0]) * processes() < 2:
            raise MiradaError("SimCLR tells images of a batch apart, and there is one: use a batch of 2 or more, and "
                              "at least 2 images to train on.")  # fmt: skip
        projected = F.normalize(self.head(torch.cat(pooled)).float(), dim=1)
        first, second = (gathered(part) for part in projected.chunk(2))
        logits, partner = contrast(first, second, self.temperature)
        loss = F.cross_entropy(logits, partner)
        whole = loss + (processes() - 1) * (loss - loss.detach())  # see `gathered`
        mine = slice(rank() * len(pooled[0]), (rank() + 1) * len(pooled[0]))
        return {
            "loss": whole, "relative_loss": loss.detach() / math.log(max(2, len(logits) - 1)),
            "accuracy": (logits[mine].argmax(1) == partner[mine]).float().mean(),
            "others": torch.tensor(len(logits) - 2.0),
        }  # fmt: skip
