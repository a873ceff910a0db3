"""CLIP (Radford et al. 2021, arXiv:2103.00020): which caption of the batch belongs to which image?"""

import math

from torch import Tensor

from mirada.objectives.contrast import matched
from mirada.objectives.two_towers import TwoTowers
from mirada.processes import counted_once

__all__ = ["CLIP"]


class CLIP(TwoTowers):
    """The mean of two cross-entropies: finding the caption of each image, and the image of each caption (figure 3)."""

    biased = False

    def contrast(self, image: Tensor, text: Tensor, same: Tensor | None) -> dict[str, Tensor]:
        scale = counted_once(self.text.logit_scale).exp()
        to_text, text_found = matched(image, text, scale, same, self.hardness)
        to_image, image_found = matched(text, image, scale, same, self.hardness)
        loss = (to_text + to_image) / 2
        return {
            "loss": loss, "relative_loss": loss.detach() / math.log(len(image)),
            "accuracy": (text_found + image_found) / 2,
        }  # fmt: skip
