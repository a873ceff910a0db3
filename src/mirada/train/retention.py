"""How much of what a two-tower model knew is still there while it is fine-tuned: seen as it happens, without labels."""

import numpy as np
import torch
from torch import Tensor

from mirada.data.images import Images
from mirada.evaluate.predict import some_of, unit_features
from mirada.model import Model
from mirada.zero_shot import everyday_words

__all__ = ["Retention"]

IMAGES = 128  # that are asked about
TEMPLATE = "a photo of a {}."


class Retention:
    """The share of images that the model still calls by the same everyday word as before training.

    A model that only learns stays near its start on words that training has nothing to do with; one that forgets does
    not (Wortsman et al. 2021, arXiv:2109.01903, on what fine-tuning destroys).
    """

    def __init__(self, model: Model, images: Images) -> None:
        self.images, self.sentences = images, [TEMPLATE.replace("{}", word) for word in everyday_words()]
        self.before = self._words(model)

    def measure(self, model: Model) -> float:
        return float((self._words(model) == self.before).double().mean())

    def _words(self, model: Model) -> Tensor:
        """The number of the likeliest word for each image, always in float32: rounding is not forgetting."""
        with torch.autocast(model.device.type, enabled=False):
            text = model.encode_text(self.sentences, normalize=True).cpu()
            _, image = unit_features(model, self.images, some_of(np.arange(len(self.images)), IMAGES))
            return (image @ text.mT).argmax(1)
