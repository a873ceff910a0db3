"""What is divided by a temperature, or multiplied by a scale, stays float32 where the network computes in bfloat16."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.objectives.contrast import matched
from mirada.objectives.crops import across_crops
from mirada.objectives.heads import Prototypes
from mirada.objectives.regularisers import gram, koleo
from mirada.objectives.siglip import sigmoid_loss
from mirada.objectives.simclr import contrast

SCALE, BIAS = torch.tensor(50.0), torch.tensor(-10.0)


def prototypes(one: Tensor, other: Tensor) -> Tensor:
    torch.manual_seed(0)
    scores: Tensor = Prototypes(one.shape[1], 64)(torch.cat([one, other]).bfloat16())
    return scores


def crops(one: Tensor, other: Tensor) -> Tensor:
    target = (one / 0.04).softmax(1).expand(2, -1, -1)
    return across_crops(target, torch.stack([one, other]).div(0.1).log_softmax(2))["loss"]


def nearly_equal(one: Tensor, other: Tensor) -> Tensor:
    return koleo(torch.cat([one, 0.99 * one + 0.01 * other]))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "prototypes": prototypes,
    "crops": crops,
    "simclr": lambda one, other: contrast(one, other, 0.1)[0],
    "clip": lambda one, other: matched(one, other, SCALE)[0],
    "koleo": nearly_equal,
    "gram": lambda one, other: gram(one[None], other[None]),
    "siglip": lambda one, other: sigmoid_loss(one, other, SCALE, BIAS)[0],
}


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name: str) -> None:
    torch.manual_seed(1)
    one, other = F.normalize(torch.randn(2, 32, 48), dim=2)
    exact = LOSSES[name](one, other)
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](one, other)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)
