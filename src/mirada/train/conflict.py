"""Which task fights which: the gradients of a sum's terms at the backbone, their norms and the cosines between them."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

__all__ = ["conflicts"]


def conflicts(losses: dict[str, Tensor], parameters: Sequence[Tensor]) -> dict[str, float]:
    """{"gradient/<term>": norm, "cosine/<term>+<term>": cosine} of the gradients of weighted losses. Below 0, a step
    for one term undoes some of the other's (Yu et al. 2020, arXiv:2001.06782, definition 1).

    Takes one more backward pass for each term, and leaves the graph and all gradients as they were.
    """
    gradients = {name: _gradient(loss, parameters) for name, loss in losses.items()}
    norms = {name: gradient.norm() for name, gradient in gradients.items()}
    found = {f"gradient/{name}": float(norm) for name, norm in norms.items()}
    for one, other in combinations(gradients, 2):
        product = (norms[one] * norms[other]).clamp(min=1e-20)
        found[f"cosine/{one}+{other}"] = float(gradients[one] @ gradients[other] / product)
    return found


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """All in one vector, float32; zeros where the loss does not depend on a parameter."""
    parts = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    flat = [
        parameter.new_zeros(parameter.numel(), dtype=torch.float32) if part is None else part.flatten().float()
        for part, parameter in zip(parts, parameters, strict=True)
    ]
    return torch.cat(flat)
