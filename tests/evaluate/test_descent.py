"""Probes trained by descent: the linear one agrees with L-BFGS, the attentive one finds what pooling loses."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mirada.evaluate.run as run
from mirada.evaluate.descent import AttentiveHead, attentive, linear_by_descent
from mirada.evaluate.features import Labelled
from mirada.evaluate.linear import linear
from mirada.evaluate.run import evaluate


def clouds(count: int, seed: int, classes: int = 3) -> Labelled:
    centres = torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    noise = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return Labelled(centres[labels] + 0.8 * noise, labels)


def needles(count: int, seed: int) -> Labelled:
    """Tokens (n, 9, 16), random but one, which holds the class and a mark by which to find it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    tokens = torch.randn(count, 9, 16, generator=generator)
    place = torch.randint(9, (count,), generator=generator)
    tokens[torch.arange(count), place] = F.one_hot(labels, 16) * 3.0 + F.one_hot(torch.tensor(15), 16) * 6.0
    return Labelled(tokens.half(), labels)


def test_linear_by_descent_is_right_as_often_as_by_newton() -> None:
    known, asked = clouds(600, 0), clouds(300, 1)
    ours, exact = (dict(probe(known, asked, 3)) for probe in (linear_by_descent, linear))
    assert list(ours) == ["accuracy", "balanced_accuracy", "loss", "learning_rate"]
    assert ours["accuracy"] == pytest.approx(exact["accuracy"], abs=0.03)
    assert ours["loss"] < exact["loss"] + 0.1


def test_the_attentive_probe_finds_what_a_mean_drowns() -> None:
    known, asked = needles(600, 0), needles(150, 1)
    found = dict(attentive(known, asked, 3))
    means = [Labelled(part.features.float().mean(1), part.labels) for part in (known, asked)]
    assert found["accuracy"] > 0.95
    assert found["accuracy"] > dict(linear(*means, 3))["accuracy"] + 0.1


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    head = AttentiveHead(128, 3)
    assert head.num_heads == 2
    nn.init.normal_(head.query)
    tokens = torch.randn(2, 5, 128)
    normal = head.norm(tokens)
    key, value = head.key_value(normal).chunk(2, -1)
    parts = []
    for number in range(2):
        mine = slice(64 * number, 64 * (number + 1))
        weight = (key[..., mine] @ head.query[mine] / 8).softmax(1)
        parts.append((weight[..., None] * value[..., mine]).sum(1))
    torch.testing.assert_close(head(tokens), head.classify(torch.cat(parts, 1)), rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_score_and_leaves_the_generator_alone() -> None:
    known, asked = needles(90, 0), needles(60, 1)
    state = torch.get_rng_state()
    assert dict(attentive(known, asked, 3, seed=3)) == dict(attentive(known, asked, 3, seed=3))
    assert torch.equal(torch.get_rng_state(), state)


def test_large_data_are_fitted_by_descent(folder_of_shapes: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LARGE", 10)
    found = evaluate("vit-pico/8", str(folder_of_shapes), probe="linear")
    assert "learning_rate" in found["metrics"]


def test_too_many_tokens_are_refused(folder_of_shapes: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirada.evaluate.descent.fits_in_memory", lambda *_: False)
    with pytest.raises(ValueError, match=r"The tokens of \d+ images would take .* use --probe linear, or fewer images"):
        evaluate("vit-pico/8", str(folder_of_shapes), probe="attentive")
