"""Few-shot: the nearest mean against a plain loop, and episodes that see what they may."""

import pytest
import torch

import mirada.evaluate.few_shot as module
from mirada.evaluate.accuracy import wilson_interval
from mirada.evaluate.features import Labelled
from mirada.evaluate.few_shot import few_shot, few_shot_interval, nearest_mean, possible_shots


@pytest.mark.parametrize("at_once", [1, 1 << 20])
def test_the_nearest_mean_is_the_papers(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    support, asked = torch.randn(4, 3, 6) + 2, torch.randn(50, 6) + 2
    centre = sum(support[c, k] for c in range(4) for k in range(3)) / 12

    def on_the_sphere(vector: torch.Tensor) -> torch.Tensor:
        return (vector - centre) / (vector - centre).norm()

    means = [sum(on_the_sphere(support[c, k]) for k in range(3)) / 3 for c in range(4)]
    expected = [min(range(4), key=lambda c: float((on_the_sphere(row) - means[c]).norm())) for row in asked]
    assert nearest_mean(support, asked).tolist() == expected
    assert len(set(expected)) == 4


def test_clear_classes_are_learned_from_one_image_each() -> None:
    """Labels keep their numbers, also where one of them is of no image."""
    labels = torch.tensor([0, 1, 3]).repeat(12)
    known = Labelled(torch.eye(4)[labels] + 0.01 * torch.randn(36, 4), labels)
    found = dict(few_shot(known, known, episodes=3))
    assert list(found) == [f"{k}-shot/{what}" for k in (1, 2, 5, 10) for what in ("accuracy", "std")] + ["accuracy"]
    assert all(value == (0.0 if name.endswith("std") else 1.0) for name, value in found.items())


def test_more_images_help_and_spread_less() -> None:
    labels = torch.arange(400) % 4
    known, asked = (Labelled(torch.eye(4)[labels] + 0.7 * torch.randn(400, 4), labels) for _ in range(2))
    found = dict(few_shot(known, asked))
    scores = [found[f"{count}-shot/accuracy"] for count in (1, 2, 5, 10)]
    assert scores == sorted(scores)
    assert found["10-shot/std"] < found["1-shot/std"]
    assert found["accuracy"] == scores[-1]
    assert dict(few_shot(known, asked)) == found
    assert dict(few_shot(known, asked, seed=1)) != found


def test_mean_and_deviation_of_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each episode holds K different images of each class."""
    labels = torch.arange(20) % 2
    known = Labelled(torch.arange(20.0)[:, None], labels)
    answers = iter([[0, 1], [0, 0], [1, 0]])
    drawn: list[torch.Tensor] = []

    def answer(support: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        drawn.append(support[..., 0])
        return torch.tensor(next(answers))

    monkeypatch.setattr(module, "nearest_mean", answer)
    found = dict(few_shot(known, Labelled(torch.zeros(2, 1), torch.tensor([0, 1])), shots=(5,), episodes=3))
    assert found["5-shot/accuracy"] == pytest.approx(0.5)  # of 1, 0.5 and 0
    assert found["5-shot/std"] == pytest.approx(0.5)
    for support in drawn:
        assert support.shape == (2, 5)
        assert (support % 2 == torch.tensor([[0], [1]])).all()
        assert len(set(support.flatten().tolist())) == 10
    assert len({tuple(support.flatten().tolist()) for support in drawn}) == 3


def test_the_smallest_class_limits_the_shots() -> None:
    labels = torch.tensor([0] * 30 + [1] * 5)
    assert possible_shots(labels) == [1, 2, 5]
    assert possible_shots(torch.tensor([0, 1, 3, 3])) == [1]
    known = Labelled(torch.randn(35, 3), labels)
    found = dict(few_shot(known, known, episodes=2))
    assert "10-shot/accuracy" not in found
    assert found["accuracy"] == found["5-shot/accuracy"]


def test_the_interval_knows_of_both_draws() -> None:
    low, high = wilson_interval(0.8, 100)
    assert few_shot_interval({"1-shot/std": 0.3, "5-shot/std": 0.0, "accuracy": 0.8}, 100) == pytest.approx((low, high))
    wide = few_shot_interval({"5-shot/std": 0.05, "accuracy": 0.8}, 100_000_000)
    assert wide == pytest.approx((0.8 - 2.093 * 0.05 / 20**0.5, 0.8 + 2.093 * 0.05 / 20**0.5), abs=1e-4)
    assert few_shot_interval({"1-shot/std": 0.5, "accuracy": 0.9}, 10)[1] == 1.0
