"""The linear probe: its fit solves the equations of logistic regression, and its penalty is chosen where it may be."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import mirada.evaluate.linear as module
from mirada.evaluate.features import Labelled
from mirada.evaluate.linear import STRENGTHS, choose_strength, hold_out, linear, standardised


def clouds(count: int, noise: float, seed: int, dim: int = 8, classes: int = 3) -> Labelled:
    """Points around one centre for each class, the same centres for all seeds."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return Labelled(
        centres[labels] + noise * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), labels
    )


def test_a_fit_solves_its_equations() -> None:
    """At the minimum of |w|^2/2 + C * sum of cross-entropies the gradients vanish, by weight and by intercept."""
    data = clouds(60, 1.0, 0)
    features, labels = data.features.numpy().astype(np.float64), data.labels.numpy()
    strength = 0.05
    model = module._fit(features, labels, strength)
    for label in range(3):
        weight, intercept = model.coef_[label].copy(), 0.0
        for row, truth in zip(features, labels, strict=True):
            scores = model.coef_ @ row + model.intercept_
            share = np.exp(scores[label]) / np.exp(scores).sum()
            weight += strength * (share - (truth == label)) * row
            intercept += share - (truth == label)
        assert np.abs(weight).max() < 5e-3 * np.abs(model.coef_).max()
        assert abs(intercept) < 0.05


def test_what_it_yields() -> None:
    known, asked = clouds(90, 0.8, 0), clouds(60, 0.8, 1)
    found = dict(linear(known, asked, 3))
    assert list(found) == ["accuracy", "balanced_accuracy", "loss", "C"]
    assert found["C"] in STRENGTHS
    train, test = standardised(known.features.numpy(), asked.features.numpy())
    model = module._fit(train, known.labels.numpy(), found["C"])
    scores = torch.from_numpy(test @ model.coef_.T + model.intercept_)
    assert found["accuracy"] == pytest.approx(float((scores.argmax(1) == asked.labels).float().mean()))
    assert found["loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(scores.double(), asked.labels)), rel=1e-4
    )
    assert 0.8 < found["accuracy"] < 1


def test_noise_is_answered_with_a_strong_penalty() -> None:
    """With as many columns as rows and hardly a signal, weak penalties learn the noise by heart."""
    clear, noisy = clouds(200, 0.2, 0), clouds(60, 6.0, 0, dim=100)
    chosen = [choose_strength(data, *hold_out(data.labels.numpy(), 0)) for data in (clear, noisy)]
    assert chosen[0] <= 1e-2  # all are right: the smallest that is
    known, asked = noisy, clouds(3000, 6.0, 1, dim=100)
    best, weakest = (dict(linear_at(known, asked, value)) for value in (chosen[1], STRENGTHS[-1]))
    assert best["accuracy"] > weakest["accuracy"]


def test_the_choice_is_that_of_a_search_over_all() -> None:
    """What tells classes apart is hidden beneath something larger that all columns share: it takes larger weights."""
    data = clouds(300, 2.5, 0, dim=20)
    data = Labelled(30 * (data.features + 10 * torch.randn(300, 1)) + 7, data.labels)
    features, labels = data.features.numpy(), data.labels.numpy()
    fitted, held_out = hold_out(labels, 0)
    mean, deviation = features[fitted].mean(0), features[fitted].std(0)
    scores = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit((features[fitted] - mean) / deviation, labels[fitted])
        scores.append(model.score((features[held_out] - mean) / deviation, labels[held_out]))
    best = int(np.argmax(scores))
    assert 0 < best < len(STRENGTHS) - 1
    assert max(scores[0], scores[-1]) < scores[best] - 0.02
    assert choose_strength(data, fitted, held_out) == STRENGTHS[best]


def linear_at(known: Labelled, asked: Labelled, strength: float) -> list[tuple[str, float]]:
    train, test = standardised(known.features.numpy(), asked.features.numpy())
    said = module._fit(train, known.labels.numpy(), strength).predict(test)
    return [("accuracy", float((said == asked.labels.numpy()).mean()))]


def test_the_scale_of_a_feature_does_not_matter() -> None:
    known, asked = clouds(90, 1.5, 0), clouds(300, 1.5, 1)
    scale, shift = torch.logspace(-3, 3, 8), torch.linspace(-5, 5, 8)
    moved = [Labelled(data.features * scale + shift, data.labels) for data in (known, asked)]
    first, second = dict(linear(known, asked, 3)), dict(linear(*moved, 3))
    assert first["C"] == second["C"]
    assert first["accuracy"] == pytest.approx(second["accuracy"], abs=0.01)


def test_standardised() -> None:
    random = np.random.default_rng(0)
    train, test = (random.normal(5, 3, (50, 3)).astype(np.float32) for _ in range(2))
    train[:, 1] = test[:, 1] = np.float32(0.1)  # constant, and no sum of it is exact
    test[0, 1] = 7
    first, second = standardised(train, test)
    assert first[:, [0, 2]].mean(0) == pytest.approx([0, 0], abs=1e-6)
    assert first[:, [0, 2]].std(0) == pytest.approx([1, 1], abs=1e-5)
    assert second[:, 0] == pytest.approx((test[:, 0] - train[:, 0].mean()) / train[:, 0].std(), abs=1e-4)
    assert not first[:, 1].any()
    assert not second[:, 1].any()
    assert not standardised(np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32))[1].any()


def test_large_features_are_standardised_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    train, test = (random.normal(5, 3, (100, 30)).astype(np.float32) for _ in range(2))
    expected = standardised(train, test)
    monkeypatch.setattr(module, "AT_ONCE", 7)
    tracemalloc.start()
    found = standardised(train, test)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * (train.nbytes + test.nbytes)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_is_held_out() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2])
    fitted, held_out = hold_out(labels, 0)
    assert sorted([*fitted, *held_out]) == list(range(16))
    assert np.bincount(labels[held_out]).tolist() == [2, 1]
    assert hold_out(labels, 0)[1].tolist() == held_out.tolist()
    assert any(hold_out(labels, seed)[1].tolist() != held_out.tolist() for seed in range(1, 4))


def test_the_choice_sees_no_image_that_is_measured() -> None:
    known, asked = clouds(60, 2.0, 0), clouds(60, 2.0, 1)
    mixed = Labelled(asked.features, asked.labels.flip(0))
    assert dict(linear(known, asked, 3))["C"] == dict(linear(known, mixed, 3))["C"]


def test_nothing_to_choose_by_and_a_class_that_is_not_there() -> None:
    known = Labelled(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 2]))
    found = dict(linear(known, known, 4))
    assert (found["accuracy"], found["C"]) == (1.0, 1.0)


def test_equal_features_are_chance() -> None:
    known = Labelled(torch.ones(40, 3), torch.arange(40) % 4)
    found = dict(linear(known, known, 4))
    assert found["accuracy"] == pytest.approx(0.25)
    assert found["loss"] == pytest.approx(np.log(4), abs=1e-3)
