"""Distances to normal features against plain loops."""

import pytest
import torch
from torch.nn import functional as F

import mirada.anomalies.neighbours as module
from mirada.anomalies.neighbours import leave_one_out, neighbour_scores


def slow(known: list[torch.Tensor], vector: torch.Tensor, neighbours: int) -> float:
    distances = sorted(1 - float(F.cosine_similarity(vector.double(), one.double(), 0)) for one in known)
    return sum(distances[:neighbours]) / len(distances[:neighbours])


@pytest.mark.parametrize("at_once", [1, 50, 1 << 20])
def test_scores_are_the_papers(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    normal, asked = torch.randn(20, 6), torch.randn(9, 6)
    expected = [slow(list(normal), vector, 3) for vector in asked]
    assert neighbour_scores(normal, asked, 3).tolist() == pytest.approx(expected, abs=1e-9)
    others = [slow([*normal[:row], *normal[row + 1 :]], normal[row], 3) for row in range(20)]
    assert leave_one_out(normal, 3).tolist() == pytest.approx(others, abs=1e-9)


def test_two_neighbours_unless_there_are_fewer() -> None:
    normal = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert neighbour_scores(normal, torch.tensor([[2.0, 0.0]])).tolist() == [0.5]
    assert neighbour_scores(normal[:1], torch.tensor([[-3.0, 0.0]])).tolist() == [2.0]
    assert leave_one_out(normal[:2]).tolist() == [1.0, 1.0]
    assert neighbour_scores(normal, torch.empty(0, 2)).shape == (0,)


def test_features_that_are_almost_alike_are_told_apart() -> None:
    """As those of a network with random weights are, whose float32 cosines are all one."""
    common = torch.full((32,), 10.0)
    normal = common + 1e-3 * torch.randn(50, 32)
    asked = common + torch.tensor([[1e-3], [4e-3]]) * torch.randn(2, 32)
    near, far = neighbour_scores(normal, asked).tolist()
    assert 0 < near < far / 4
