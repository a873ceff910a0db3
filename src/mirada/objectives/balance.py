"""Weights of a sum's terms that are learned with the network: by the uncertainty of each task (Kendall, Gal and Cipolla
2017, arXiv:1705.07115) or so that all train at similar rates (GradNorm, Chen et al. 2017, arXiv:1711.02257).

Both start from the weights that the sum was written with, and multiply them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mirada.processes import processes, summed

__all__ = ["BALANCES", "Balance", "GradNorm", "Uncertainty"]


class Balance(nn.Module):
    """`forward` takes the weighted losses, scalars in the order of `terms`, and `shared`, the parameters of the last
    layers that all terms train; it returns their sum, balanced."""

    def __init__(self, terms: Sequence[str]) -> None:
        super().__init__()
        self.terms = list(terms)

    def forward(self, losses: Tensor, shared: Sequence[Tensor]) -> Tensor:
        raise NotImplementedError

    def factors(self) -> Tensor:
        """What each loss is multiplied by now, (T,)."""
        raise NotImplementedError

    def after_step(self) -> None:
        """For what the optimiser's step has to respect."""


class Uncertainty(Balance):
    """exp(-s) * loss + s / 2 for each term, where s, the log variance of its noise, is learned (equation 10, in the
    form for classification; s starts at 0)."""

    def __init__(self, terms: Sequence[str]) -> None:
        super().__init__(terms)
        self.log_variance = nn.Parameter(torch.zeros(len(terms)))

    def forward(self, losses: Tensor, shared: Sequence[Tensor]) -> Tensor:
        del shared
        return (self.factors() * losses + self.log_variance / 2).sum()

    def factors(self) -> Tensor:
        return (-self.log_variance).exp()


class GradNorm(Balance):
    """Factors whose gradients at the last shared layers have norms in proportion to how far each task lags behind, to
    the power `alpha` (equations 1 and 2). They stay positive and sum to the number of terms.

    The paper's loss of the factors, the sum of |G_i - target_i| with G_i = factor_i * |gradient of loss_i|, has the
    gradient sign(G_i - target_i) * |gradient of loss_i|: it is given to the optimiser as it is, divided by the mean
    norm so that its size does not depend on the losses' scale, and needs no second derivatives.
    """

    initial: Tensor

    def __init__(self, terms: Sequence[str], alpha: float = 1.5) -> None:
        super().__init__(terms)
        self.alpha = alpha
        self.factor = nn.Parameter(torch.ones(len(terms)))
        self.register_buffer("initial", torch.zeros(len(terms)))

    def forward(self, losses: Tensor, shared: Sequence[Tensor]) -> Tensor:
        balanced = (self.factor.detach() * losses).sum()
        if not torch.is_grad_enabled():
            return balanced
        if not bool(self.initial.all()):  # a batch without labels has a loss of 0, which is no start
            self.initial.copy_(torch.where(self.initial > 0, self.initial, summed(losses) / processes()))
        norms = []
        for loss in losses:
            parts = torch.autograd.grad(loss, list(shared), retain_graph=True, allow_unused=True)
            norms.append(torch.stack([part.float().norm() for part in parts if part is not None]).norm())
        norm = torch.stack(norms)  # (T,)
        with torch.no_grad():
            weighted = self.factor * norm
            lag = torch.where(self.initial > 0, losses / self.initial.clamp(min=1e-12), 1.0)
            target = weighted.mean() * (lag / lag.mean()) ** self.alpha
            gradient = (weighted - target).sign() * norm / norm.mean().clamp(min=1e-12)
        moving = (self.factor * gradient).sum()
        return balanced + moving - moving.detach()

    def factors(self) -> Tensor:
        return self.factor

    @torch.no_grad()
    def after_step(self) -> None:
        self.factor.clamp_(min=0.01).mul_(len(self.terms) / self.factor.sum())


BALANCES: dict[str, type[Balance]] = {"uncertainty": Uncertainty, "gradnorm": GradNorm}
