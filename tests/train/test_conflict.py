"""Norms and cosines of terms' gradients, against gradients computed one by one."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mirada.train import loop
from mirada.train.conflict import conflicts
from mirada.train.run import train
from mirada.train.settings import Settings


def test_norms_and_cosines_are_those_of_separate_gradients() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.tensor([3.0], requires_grad=True)
    losses = {"one": 3 * weight[0], "other": weight.sum(), "against": -2 * weight[0] * unused.detach().sum()}
    found = conflicts(losses, [weight, unused])
    assert found["gradient/one"] == pytest.approx(3)
    assert found["gradient/other"] == pytest.approx(2**0.5)
    assert found["cosine/one+other"] == pytest.approx(0.5**0.5)
    assert found["cosine/one+against"] == pytest.approx(-1)
    assert weight.grad is None


def test_the_graph_can_still_be_used() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = {"one": (weight**2).sum(), "other": weight.exp().sum()}
    conflicts(losses, [weight])
    (losses["one"] + losses["other"]).backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach() + weight.detach().exp())


def test_a_term_without_gradient_has_no_direction() -> None:
    weight, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    found = conflicts({"one": weight.sum(), "none": (other * 2).sum()}, [weight])
    assert found["gradient/none"] == 0
    assert found["cosine/one+none"] == 0


def test_learned_factors_of_the_weights_are_in_what_is_logged(
    folder_of_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, float]] = []

    def watched(losses: dict[str, Tensor], parameters: list[Tensor]) -> dict[str, float]:
        seen.append({name: float(loss.detach()) for name, loss in losses.items()})
        return conflicts(losses, parameters)

    monkeypatch.setattr(loop, "conflicts", watched)
    settings = Settings(
        model="vit-pico/8(depth=1)", objective="supervised + 0.5*rotation", balance="gradnorm", image_size=24, batch=16,
        steps=5, precision="float32", validate=0, optimiser="adamw", learning_rate=0.1,
    )  # fmt: skip
    train(str(folder_of_shapes), settings, out=str(tmp_path / "run"))
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert abs(last["rotation/factor"] - 1) > 0.01
    for name, weight in (("supervised", 1.0), ("rotation", 0.5)):
        assert seen[-1][name] == pytest.approx(weight * last[f"{name}/factor"] * last[f"{name}/loss"], rel=1e-4)
