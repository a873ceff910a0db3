"""What compares the samples of a batch with each other, as contrastive objectives do.

Its loss is no mean over samples, so parts of a batch cannot be computed one after another, as for other losses. It has
two halves instead: what each sample gives on its own, which may be computed in parts, and the comparison, which sees
all of them (GradCache, Gao et al. 2021, arXiv:2101.06983; see `mirada.train.parts`).
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mirada.objectives.base import Encoder, Objective

__all__ = ["ROWS", "Contrast", "harder", "matched"]

ROWS = 256  # of similarities that are held at a time


class Contrast(Objective):
    """`forward` is `compare` of what `represent` gives."""

    def represent(self, backbone: Encoder, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the comparison needs of each sample, tensors (B, ...), in which no sample sees another."""
        raise NotImplementedError

    def compare(self, samples: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """What `forward` returns, from all samples of the batch."""
        raise NotImplementedError

    def forward(self, backbone: Encoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        return self.compare(self.represent(backbone, batch), progress)


def matched(
    rows: Tensor, columns: Tensor, scale: Tensor, ignored: Tensor | None = None, hardness: float = 0.0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """InfoNCE (van den Oord et al. 2018, arXiv:1807.03748, equation 4): the mean cross-entropy of finding for each of
    `rows` (N, D) its partner, the same one of `columns` (N, D), among all of them; and the share of those found.

    The logits are `scale` times the products. `ignored`, bool (N, N), are no partners and do not count as others
    either; `hardness` as in `harder`. Similarities are held `ROWS` rows at a time, and computed again for the gradient.
    """
    losses, found = [], []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        hidden = None if ignored is None else ignored[start : start + ROWS]
        if len(rows) > ROWS and torch.is_grad_enabled():
            loss, right = checkpoint(_rows, part, columns, scale, start, hidden, hardness, use_reentrant=False)
        else:
            loss, right = _rows(part, columns, scale, start, hidden, hardness)
        losses.append(loss)
        found.append(right)
    return torch.cat(losses).mean(), torch.cat(found).float().mean()


def _rows(
    rows: Tensor, columns: Tensor, scale: Tensor, start: int, ignored: Tensor | None, hardness: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    with torch.autocast(rows.device.type, enabled=False):  # the scale multiplies what rounding takes away
        similarity = rows @ columns.mT
    partner = torch.arange(start, start + len(rows), device=rows.device)
    logits = scale * similarity
    own = partner[:, None] == torch.arange(len(columns), device=rows.device)
    hidden = own if ignored is None else own | ignored
    logits = logits.masked_fill(hidden & ~own, -torch.inf)
    found = logits.argmax(1) == partner
    if hardness:
        logits = logits + harder(similarity, hidden, hardness)
    return F.cross_entropy(logits, partner, reduction="none"), found


def harder(similarity: Tensor, hidden: Tensor, hardness: float) -> Tensor:
    """Logarithms of weights for the others in each row of `similarity` (n, N): exp(hardness * similarity), scaled to
    have mean one, so that those that are hard to tell apart count more (Robinson et al. 2020, arXiv:2010.04592,
    equation 4, with tau+ = 0); 0 where `hidden`, bool (n, N). No gradient flows through them."""
    weight = (hardness * similarity.detach()).masked_fill(hidden, -torch.inf)
    count = (~hidden).sum(1, keepdim=True).clamp(min=1).log()
    return (weight - weight.logsumexp(1, keepdim=True) + count).masked_fill(hidden, 0.0)
