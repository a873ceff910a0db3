"""Weighted nearest neighbours against a plain loop."""

import math

import pytest
import torch
from torch.nn import functional as F

import mirada.evaluate.knn as module
from mirada.evaluate.features import Labelled
from mirada.evaluate.knn import knn, votes


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
def test_votes_are_the_papers(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    known, labels, asked = torch.randn(30, 5), torch.arange(30) % 4, torch.randn(7, 5)
    found = votes(known, labels, asked, 4, neighbours=6, temperature=0.2)
    for row, vector in zip(found, asked, strict=True):
        cosines = [float(F.cosine_similarity(vector, other, 0)) for other in known]
        nearest = sorted(range(30), key=lambda place: -cosines[place])[:6]
        share = [sum(math.exp(cosines[i] / 0.2) for i in nearest if labels[i] == c) for c in range(4)]
        torch.testing.assert_close(row, torch.tensor(share) / sum(share))


def test_fewer_images_than_neighbours_all_vote() -> None:
    found = votes(torch.eye(3), torch.tensor([0, 1, 1]), torch.eye(3)[:1], 2, temperature=1.0)
    assert found[0].tolist() == pytest.approx([math.e / (math.e + 2), 2 / (math.e + 2)])


def test_the_protocols_numbers() -> None:
    """20 neighbours and a temperature of 0.07: 19 far ones outvote a near one only if they are not too far."""
    for cosine, winner in ((0.8, 1), (0.785, 0)):  # 19 * exp((0.8 - 1) / 0.07) = 1.09, and 0.88
        far = torch.tensor([cosine, math.sqrt(1 - cosine**2)]).expand(40, 2)
        known = Labelled(torch.cat([torch.tensor([[1.0, 0.0]]), far]), torch.tensor([0, *[1] * 40]))
        asked = Labelled(torch.tensor([[3.0, 0.0]]), torch.tensor([winner]))
        assert dict(knn(known, asked, 2)) == {"accuracy": 1.0, "balanced_accuracy": 1.0}
    shares = votes(known.features, known.labels, asked.features, 2)
    assert float(shares[0, 1] / shares[0, 0]) == pytest.approx(19 * math.exp(-0.215 / 0.07), rel=1e-4)
