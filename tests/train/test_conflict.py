"""Norms and cosines of terms' gradients, against gradients computed one by one."""

import pytest
import torch

from mirada.train.conflict import conflicts


def test_norms_and_cosines_are_those_of_separate_gradients() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.tensor([3.0], requires_grad=True)
    losses = {"one": 3 * weight[0], "other": weight.sum(), "against": -2 * weight[0] * unused.detach().sum()}
    found = conflicts(losses, [weight, unused])
    assert found["gradient/one"] == pytest.approx(3)
    assert found["gradient/other"] == pytest.approx(2**0.5)
    assert found["cosine/one+other"] == pytest.approx(0.5**0.5)
    assert found["cosine/one+against"] == pytest.approx(-1)
    assert weight.grad is None


def test_the_graph_can_still_be_used() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = {"one": (weight**2).sum(), "other": weight.exp().sum()}
    conflicts(losses, [weight])
    (losses["one"] + losses["other"]).backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach() + weight.detach().exp())


def test_a_term_without_gradient_has_no_direction() -> None:
    weight, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    found = conflicts({"one": weight.sum(), "none": (other * 2).sum()}, [weight])
    assert found["gradient/none"] == 0
    assert found["cosine/one+none"] == 0
