"""NT-Xent against the paper's formula, term by term."""

import math

import pytest
import torch
from torch.nn import functional as F

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.objectives import SimCLR
from mirada.objectives.simclr import contrast


def slowly(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Equation 1 of arXiv:2002.05709, averaged over both orders of all pairs."""
    rows = [*first, *second]
    losses = []
    for i in range(len(rows)):
        j = (i + len(first)) % len(rows)
        others = sum(torch.exp(rows[i] @ rows[k] / temperature) for k in range(len(rows)) if k != i)
        losses.append(-torch.log(torch.exp(rows[i] @ rows[j] / temperature) / others))
    return torch.stack(losses).mean()


def test_as_the_papers_formula() -> None:
    found = []
    for how in (slowly, lambda a, b, t: F.cross_entropy(*contrast(a, b, t))):
        raw = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
        first, second = F.normalize(raw, dim=2)
        loss = how(first, second, 0.3)
        loss.backward()
        found.append((loss.detach(), raw.grad))
    torch.testing.assert_close(found[0], found[1])


def test_views_differ_and_come_from_the_same_image() -> None:
    from learners import samples

    objective = SimCLR(build("vit-pico/4(depth=1, image_size=16)"))
    batch = objective.views(samples())
    assert batch["first"].shape == batch["second"].shape == (8, 3, 16, 16)
    assert not torch.equal(batch["first"], batch["second"])


def test_features_that_do_not_tell_images_apart_cost_log_of_the_others() -> None:
    same = F.normalize(torch.ones(8, 4), dim=1)
    logits, partner = contrast(same, same, 0.1)
    assert F.cross_entropy(logits, partner).item() == pytest.approx(math.log(15), rel=1e-5)


def test_one_image_is_refused() -> None:
    backbone = build("vit-pico/4(depth=1, image_size=16)")
    image = torch.randn(1, 3, 16, 16)
    with pytest.raises(MiradaError, match="use a batch of 2 or more"):
        SimCLR(backbone)(backbone, {"first": image, "second": image}, 0.0)
    with pytest.raises(MiradaError, match="use one above 0"):
        SimCLR(backbone, temperature=0.0)
