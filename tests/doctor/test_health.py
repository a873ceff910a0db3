"""Measures of collapse against slow loops of their formulas, and at the two ends of their ranges."""

import math

import pytest
import torch

from mirada.backbones import build
from mirada.doctor.health import Health, feature_deviation, information, neighbours_agree, rank_me
from mirada.objectives import Learner

RANDOM = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))


def test_feature_deviation_goes_from_0_to_1() -> None:
    assert feature_deviation(torch.ones(8, 16)) == 0
    assert feature_deviation(RANDOM) == pytest.approx(1, abs=0.05)
    assert feature_deviation(1000 * RANDOM) == pytest.approx(feature_deviation(RANDOM), rel=1e-5)
    assert feature_deviation(RANDOM + 100) < 0.02


def test_rank_is_the_papers_formula() -> None:
    values = torch.linalg.svdvals(RANDOM).tolist()
    shares = [value / sum(values) for value in values]
    assert rank_me(RANDOM) == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)), rel=1e-4)


def test_rank_counts_directions() -> None:
    assert rank_me(torch.ones(8, 16)) == pytest.approx(1)
    assert rank_me(torch.eye(16)) == pytest.approx(16, rel=1e-4)
    assert math.isnan(rank_me(torch.full((4, 4), torch.nan)))


def test_information_is_the_mean_divergence_from_the_mean() -> None:
    shares = RANDOM.softmax(1)
    mean = shares.mean(0)
    slow = sum(float(share * (share / mean[k]).log()) for row in shares for k, share in enumerate(row)) / len(shares)
    entropy, told = information(shares)
    assert told == pytest.approx(slow / math.log(16), rel=1e-3)
    assert entropy == pytest.approx(float(-(shares * shares.log()).sum(1).mean()) / math.log(16), rel=1e-4)


@pytest.mark.parametrize(
    ("shares", "entropy", "told"),
    [
        (torch.full((8, 4), 0.25), 1, 0),  # uniform collapse
        (torch.eye(4)[torch.zeros(8, dtype=torch.long)], 0, 0),  # one prototype
        (torch.eye(4).repeat(2, 1), 0, 1),  # certain and different
    ],
)
def test_information_tells_the_two_collapses_from_health(shares: torch.Tensor, entropy: float, told: float) -> None:
    assert information(shares) == pytest.approx((entropy, told), abs=1e-6)


def test_neighbours_agree_with_labels_that_features_hold() -> None:
    labels = torch.arange(200) % 4
    assert neighbours_agree(RANDOM[:4][labels] + 0.01 * RANDOM, labels) == 1
    chance = neighbours_agree(RANDOM, labels)
    assert chance is not None
    assert chance < 0.5
    assert neighbours_agree(RANDOM, torch.full((200,), -1)) is None
    assert neighbours_agree(RANDOM, torch.zeros(200, dtype=torch.long)) is None


@pytest.mark.parametrize("text", ["dino(prototypes=8)", "dino(prototypes=8, centring='mean')", "swav(prototypes=8)",
                                  "rotation + simclr"])  # fmt: skip
def test_measuring_moves_nothing(text: str) -> None:
    learner = Learner(build("vit-pico/4(depth=1, image_size=16, drop_path=0.1)"), text)
    learner.train()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    random = torch.get_rng_state()
    health = Health(torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3)
    found = health.measure(learner)
    assert learner.training
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), name
    answering = {term for term in ("dino", "swav") if term in text}
    expected = {"image_deviation", "feature_deviation", "rank", "knn"}
    expected |= {f"{term}_{what}" for term in answering for what in ("entropy", "information", "prototypes")}
    assert set(found) == {f"health/{name}" for name in expected}
    assert found == health.measure(learner)
