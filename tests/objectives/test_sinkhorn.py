"""Balanced assignment against the paper's own loop."""

import torch

from mirada.objectives.sinkhorn import sinkhorn


def slowly(scores: torch.Tensor, epsilon: float, rounds: int) -> torch.Tensor:
    """Appendix A.1 of arXiv:2006.09882: columns to 1/K, rows to 1/B, then rows to 1."""
    q = (scores.double() / epsilon).exp()
    q /= q.sum()
    for _ in range(rounds):
        for k in range(q.shape[1]):
            q[:, k] /= q[:, k].sum() * q.shape[1]
        for b in range(q.shape[0]):
            q[b] /= q[b].sum() * q.shape[0]
    return (q * q.shape[0]).float()


def test_as_the_papers_loop() -> None:
    scores = torch.rand(12, 5)
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3), slowly(scores, 0.05, 3))


def test_every_prototype_gets_its_share() -> None:
    scores = torch.rand(64, 8) + torch.tensor([1.0] + 7 * [0.0])  # all images prefer the first
    assigned = sinkhorn(scores, 0.1, 50)
    torch.testing.assert_close(assigned.sum(1), torch.ones(64))
    torch.testing.assert_close(assigned.sum(0), torch.full((8,), 8.0), atol=1e-2, rtol=0)


def test_sharp_temperatures_do_not_overflow() -> None:
    assert sinkhorn(100 * torch.randn(8, 4), 0.001).isfinite().all()
