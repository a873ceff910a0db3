"""Mahalanobis distances against the textbook's, with scikit-learn's shrunk covariance."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf, ledoit_wolf

from mirada.anomalies.mahalanobis import fit, leave_one_out, mahalanobis


@pytest.mark.parametrize(("count", "dim"), [(50, 4), (6, 12)])
def test_distances_are_those_of_the_shrunk_covariance(count: int, dim: int) -> None:
    normal, asked = torch.randn(count, dim) * torch.arange(1, dim + 1), torch.randn(5, dim)
    peer = LedoitWolf().fit(normal.double().numpy())
    expected = np.sqrt(peer.mahalanobis(asked.double().numpy()))
    assert mahalanobis(fit(normal), asked).numpy() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("count", "dim"), [(40, 3), (5, 9), (2, 3)])
def test_leaving_one_out_is_fitting_to_the_others(count: int, dim: int) -> None:
    normal = torch.randn(count, dim)
    gaussian = fit(normal)
    shrinkage, variance = gaussian.shrinkage, gaussian.variance
    assert shrinkage == pytest.approx(max(ledoit_wolf(normal.double().numpy())[1], 0.5 * (count == 2)), rel=1e-8)
    for row, found in enumerate(leave_one_out(gaussian, normal).tolist()):
        others = np.delete(normal.double().numpy(), row, 0)
        away = normal[row].double().numpy() - others.mean(0)
        covariance = (1 - shrinkage) * np.cov(others.T, bias=True) + shrinkage * variance * np.eye(dim)
        assert found == pytest.approx(float(np.sqrt(away @ np.linalg.inv(covariance) @ away)), rel=1e-6)


def test_rows_that_are_all_alike_have_no_distance_but_stay_finite() -> None:
    same = torch.ones(4, 3)
    assert leave_one_out(fit(same), same).tolist() == [0, 0, 0, 0]
    assert bool(mahalanobis(fit(same), same).isfinite().all())
