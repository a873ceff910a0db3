"""Values and gradients of losses against lightly's, where it is installed (`pip install lightly`)."""

import warnings
from collections.abc import Callable

import pytest
import torch
from peers import import_torchvision
from torch import Tensor
from torch.nn import functional as F

from mirada.objectives.crops import across_crops
from mirada.objectives.regularisers import koleo
from mirada.objectives.simclr import contrast
from mirada.objectives.sinkhorn import sinkhorn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("lightly", reason="lightly is a rival, not a dependency")
    import_torchvision()
    losses = pytest.importorskip("lightly.loss", reason="lightly is a rival, not a dependency")


def agree(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], *shape: int) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    results = []
    for function in (ours, theirs):
        inputs = x.clone().requires_grad_()
        value = function(inputs)
        value.sum().backward()
        results.append((value.detach().reshape(()), inputs.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_simclr() -> None:
    def ours(x: Tensor) -> Tensor:
        return F.cross_entropy(*contrast(*F.normalize(x, dim=-1), 0.3))

    agree(ours, lambda x: losses.NTXentLoss(temperature=0.3)(*x), 2, 8, 16)


def test_dino() -> None:
    taught = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(1))

    def ours(x: Tensor) -> Tensor:
        return across_crops((taught / 0.04).softmax(-1), F.log_softmax(x / 0.1, -1))["loss"]

    agree(ours, lambda x: losses.DINOLoss(output_dim=32)(list(taught), list(x)), 5, 8, 32)


def test_swav() -> None:
    def ours(x: Tensor) -> Tensor:
        targets = torch.stack([sinkhorn(scores.detach()) for scores in x[:2]])
        return across_crops(targets, F.log_softmax(x / 0.1, -1))["loss"]

    agree(lambda x: ours(x.tanh()), lambda x: losses.SwaVLoss()(list(x.tanh()[:2]), list(x.tanh()[2:])), 4, 16, 8)


def test_koleo() -> None:
    agree(koleo, losses.KoLeoLoss(), 16, 8)
