"""InfoNCE against a slow loop of the papers' formulas, whole and in rows."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.objectives import contrast
from mirada.objectives.contrast import matched


def slowly(rows: Tensor, columns: Tensor, scale: float, ignored: set[tuple[int, int]], beta: float) -> Tensor:
    """van den Oord et al., equation 4; with the weights of Robinson et al., equation 4."""
    losses = []
    for i in range(len(rows)):
        others = [j for j in range(len(columns)) if j != i and (i, j) not in ignored]
        weights = [math.exp(beta * float((rows[i] @ columns[j]).detach())) for j in others]
        mean = sum(weights) / len(weights)
        partner = torch.exp(scale * (rows[i] @ columns[i]))
        total = partner + sum(w / mean * torch.exp(scale * (rows[i] @ columns[j])) for w, j in
                              zip(weights, others, strict=True))  # fmt: skip
        losses.append(-torch.log(partner / total))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("beta", [0.0, 1.5])
@pytest.mark.parametrize("ignored", [set(), {(0, 3), (3, 0), (1, 4)}])
@pytest.mark.parametrize("held", [1024, 2])
def test_as_the_formula(held: int, ignored: set[tuple[int, int]], beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "ROWS", held)
    raw = torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.zeros(5, 5, dtype=torch.bool)
    for pair in ignored:
        mask[pair] = True
    found = []
    for how in ("ours", "slowly"):
        leaf = raw.clone().requires_grad_()
        scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
        rows, columns = F.normalize(leaf, dim=2)
        if how == "ours":
            loss, right = matched(rows, columns, scale, mask if ignored else None, beta)
            visible = (rows @ columns.mT).masked_fill(mask, -2)
            assert float(right) == pytest.approx(float((visible.argmax(1) == torch.arange(5)).double().mean()))
        else:
            loss = slowly(rows, columns, scale, ignored, beta)
        loss.backward()
        found.append((loss.detach(), leaf.grad, scale.grad))
    torch.testing.assert_close(found[0], found[1])


def test_all_others_ignored_is_no_task() -> None:
    rows = F.normalize(torch.randn(3, 4), dim=1)
    everything = ~torch.eye(3, dtype=torch.bool)
    loss, right = matched(rows, rows, torch.tensor(10.0), everything, 1.0)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert float(right) == 1
