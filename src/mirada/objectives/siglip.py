"""SigLIP (Zhai et al. 2023, arXiv:2303.15343): does this caption belong to this image? Asked of every pair of the
batch."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mirada.objectives.contrast import ROWS, harder
from mirada.objectives.two_towers import TwoTowers
from mirada.processes import counted_once

__all__ = ["SigLIP", "sigmoid_loss"]


class SigLIP(TwoTowers):
    """A sigmoid for each pair instead of a softmax over all (section 3.2), with a learned scale and bias."""

    biased = True

    def contrast(self, image: Tensor, text: Tensor, same: Tensor | None) -> dict[str, Tensor]:
        assert self.text.logit_bias is not None
        scale, bias = counted_once(self.text.logit_scale).exp(), counted_once(self.text.logit_bias)
        loss, found = sigmoid_loss(image, text, scale, bias, same, self.hardness)
        count = len(image)  # one who knows nothing says 1/N to every pair
        chance = math.log(count) - (count - 1) * math.log1p(-1 / count)
        return {"loss": loss, "relative_loss": loss.detach() / chance, "accuracy": found}


def sigmoid_loss(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, ignored: Tensor | None = None, hardness: float = 0.0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Equation 1: the sum over pairs of -log sigmoid(z * logit), z = 1 for partners and -1 for others, over the number
    N of images; and the share of images whose partner is the likeliest. Rows (N, D) have unit length; `ignored`, bool
    (N, N), do not count; `hardness` as in `harder`. Pairs are held `ROWS` images at a time, and computed again for the
    gradient."""
    losses, found = [], []
    for start in range(0, len(image), ROWS):
        hidden = None if ignored is None else ignored[start : start + ROWS]
        arguments = (image[start : start + ROWS], text, scale, bias, start, hidden, hardness)
        if len(image) > ROWS and torch.is_grad_enabled():
            loss, right = checkpoint(_rows, *arguments, use_reentrant=False)
        else:
            loss, right = _rows(*arguments)
        losses.append(loss)
        found.append(right)
    return torch.cat(losses).mean(), torch.cat(found).float().mean()


def _rows(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, start: int, ignored: Tensor | None, hardness: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    with torch.autocast(image.device.type, enabled=False):  # the scale multiplies what rounding takes away
        similarity = image @ text.mT
    logits = scale * similarity + bias
    partner = torch.arange(start, start + len(image), device=image.device)
    own = partner[:, None] == torch.arange(len(text), device=image.device)
    loss = -F.logsigmoid(torch.where(own, logits, -logits))
    if hardness:
        hidden = own if ignored is None else own | ignored
        loss = loss * harder(similarity, hidden, hardness).exp()
    if ignored is not None:
        loss = loss.masked_fill(ignored, 0.0)
        logits = logits.masked_fill(ignored, -torch.inf)
    return loss.sum(1), logits.argmax(1) == partner
