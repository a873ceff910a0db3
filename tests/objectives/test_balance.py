"""Learned weights of terms, against their papers' formulas."""

import pytest
import torch
from torch import nn

from mirada.backbones import build
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives import Learner
from mirada.objectives.balance import BALANCES, GradNorm, Uncertainty


def test_uncertainty_ends_where_the_formula_says() -> None:
    """exp(-s) * L + s / 2 is smallest at s = ln(2 L)."""
    balance = Uncertainty(["easy", "hard"])
    losses = torch.tensor([0.5, 4.0])
    optimiser = torch.optim.Adam(balance.parameters(), 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        balance(losses, []).backward()
        optimiser.step()
    torch.testing.assert_close(balance.log_variance.detach(), (2 * losses).log(), atol=1e-2, rtol=0)
    torch.testing.assert_close(balance.factors().detach(), 1 / (2 * losses), atol=1e-2, rtol=0)


def test_gradnorm_gradient_is_that_of_the_papers_loss() -> None:
    """Equation 2, differentiated by autograd through the norms, with the target held constant as the paper does."""
    torch.manual_seed(0)
    shared, x = nn.Linear(4, 3), torch.randn(8, 4)
    heads = [nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(3, 1)]

    def losses() -> torch.Tensor:
        hidden = shared(x).tanh()
        return torch.stack(
            [scale * head(hidden).square().mean() for scale, head in zip((1, 10, 3), heads, strict=True)]
        )

    balance = GradNorm(["a", "b", "c"], alpha=0.7)
    balance.initial.copy_(torch.tensor([2.0, 3.0, 0.5]))
    with torch.no_grad():
        balance.factor.copy_(torch.tensor([0.5, 1.0, 1.5]))
    balance(losses(), list(shared.parameters())).backward()

    factor = balance.factor.detach().clone().requires_grad_()
    now = losses()
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(f * loss, shared.parameters(), create_graph=True)]).norm()
        for f, loss in zip(factor, now, strict=True)
    ]
    ratio = now / balance.initial
    target = (torch.stack(norms).mean() * (ratio / ratio.mean()) ** 0.7).detach()
    (torch.stack(norms) - target).abs().sum().backward()
    plain = torch.stack(norms).detach() / factor.detach()
    torch.testing.assert_close(balance.factor.grad, factor.grad / plain.mean(), rtol=1e-4, atol=1e-5)


def test_gradnorm_trains_the_network_with_its_factors_and_they_sum_to_the_number_of_terms() -> None:
    weight = torch.ones(2, requires_grad=True)
    losses = torch.stack([weight[0] * 2, weight[1] * 10])
    balance = GradNorm(["a", "b"])
    with torch.no_grad():
        balance.factor.copy_(torch.tensor([1.5, 0.5]))
    balance(losses, [weight]).backward()
    torch.testing.assert_close(weight.grad, torch.tensor([3.0, 5.0]))
    with torch.no_grad():
        balance.factor.copy_(torch.tensor([-1.0, 3.0]))
    balance.after_step()
    assert float(balance.factor.detach().sum()) == pytest.approx(2)
    assert bool((balance.factor > 0).all())


def test_gradnorm_makes_unequal_gradients_alike() -> None:
    torch.manual_seed(0)
    shared, x = nn.Linear(6, 4), torch.randn(32, 6)
    balance = GradNorm(["small", "large"], alpha=0.0)
    optimiser = torch.optim.Adam(balance.parameters(), 0.02)
    for _ in range(200):
        hidden = shared(x)
        losses = torch.stack([hidden[:, 0].square().mean(), 9 * hidden[:, 1].square().mean()])
        optimiser.zero_grad()
        balance(losses, list(shared.parameters())).backward()
        optimiser.step()
        balance.after_step()
    hidden = shared(x)
    losses = torch.stack([hidden[:, 0].square().mean(), 9 * hidden[:, 1].square().mean()])
    norms = [torch.autograd.grad(loss, shared.weight, retain_graph=True)[0].norm() for loss in losses]
    one, other = (float(f * norm) for f, norm in zip(balance.factor.detach(), norms, strict=True))
    assert one == pytest.approx(other, rel=0.1)


@pytest.mark.parametrize("name", BALANCES)
def test_a_learner_balances_real_terms(name: str) -> None:
    torch.manual_seed(0)
    canvases, half = torch.randint(0, 256, (8, 3, 20, 20), dtype=torch.uint8), torch.full((3,), 0.5)
    samples = Samples(canvases, torch.ones(8), torch.full((8,), -1), size=(16, 16), seed=2, mean=half, std=half)
    learner = Learner(build("vit-pico/4(depth=1, image_size=16)"), "rotation + 0.5*masked", balance=name)
    optimiser = torch.optim.AdamW(learner.parameters(), 1e-2)
    batch = learner.views(samples)
    for step in range(3):
        result = learner(batch, 0.1 * step)
        assert {"rotation/factor", "masked/factor"} < result.keys()
        optimiser.zero_grad()
        result["loss"].backward()
        optimiser.step()
        learner.after_step(0.1 * step)
    factors = [float(factor.detach()) for factor in learner.balance.factors()]
    assert factors != [1.0, 1.0]


def test_gradnorm_waits_for_the_first_loss_of_each_term() -> None:
    balance, weight = GradNorm(["rare", "usual"]), torch.ones(2, requires_grad=True)
    for scale, initial in (((0.0, 5.0), [0, 5]), ((3.0, 4.0), [3, 5]), ((2.0, 2.0), [3, 5])):
        balance(torch.stack([weight[0] * scale[0], weight[1] * scale[1]]), [weight]).backward()
        assert balance.initial.tolist() == initial
        assert bool(balance.factor.grad.isfinite().all())


def test_gradnorm_needs_a_layer_that_learns() -> None:
    backbone = build("vit-pico/4(depth=1, image_size=16)").requires_grad_(False)
    with pytest.raises(MiradaError, match="the last layers, which are frozen"):
        Learner(backbone, "rotation + masked", balance="gradnorm")


def test_one_term_alone_cannot_be_balanced() -> None:
    with pytest.raises(MiradaError, match="nothing to balance in 'rotation': write a sum"):
        Learner(build("vit-pico/4(depth=1, image_size=16)"), "rotation", balance="gradnorm")
