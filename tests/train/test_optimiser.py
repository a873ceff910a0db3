"""Which parameter gets what; Muon against a slow loop of its formula; the schedules' ends."""

import pytest
import torch
from torch import nn

from mirada.backbones import build
from mirada.objectives import Learner
from mirada.train.muon import Muon, orthogonalise
from mirada.train.optimiser import build_optimisers, choose_optimiser, rate_at, set_rates
from mirada.train.settings import Settings


def learner(model: str = "vit-pico/4(registers=2, image_size=16)") -> Learner:
    return Learner(build(model), "supervised", classes=3)


def groups_by_name(settings: Settings, module: Learner) -> dict[str, tuple[str, float, float]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {}
    for optimiser in build_optimisers(module, settings):
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                entry = (type(optimiser).__name__, group["peak"], group["weight_decay"])
                assert found.setdefault(names[id(parameter)], entry) is entry, "in one group only"
    assert found.keys() == set(names.values())
    return found


@pytest.mark.parametrize("model", ["vit-pico/4(registers=2, layer_scale=0.1, image_size=16)", "resnet-18"])
def test_only_matrices_and_kernels_decay(model: str) -> None:
    module = learner(model)
    for name, (_, _, decay) in groups_by_name(Settings(weight_decay=0.3, optimiser="adamw"), module).items():
        weight = dict(module.named_parameters())[name]
        token = name.rpartition(".")[2] in ("prefix", "position", "class_position")
        assert decay == (0.3 if weight.ndim >= 2 and not token else 0.0), name


@pytest.mark.parametrize("model", ["vit-pico/4(image_size=16)", "vit-pico/4(stem='deep', image_size=16)"])
def test_muon_takes_hidden_matrices_only(model: str) -> None:
    found = groups_by_name(Settings(optimiser="muon"), learner(model))
    for name, (kind, _, _) in found.items():
        hidden = name.startswith("backbone.blocks") and name.endswith("weight") and "norm" not in name
        hidden |= name == "backbone.stem.project.weight" or (".convolution.weight" in name and "stem" in name)
        assert kind == ("Muon" if hidden else "AdamW"), name


@pytest.mark.parametrize(
    ("settings", "trained_by", "expected"),
    [
        (Settings(), None, "muon"), (Settings(init="a-model"), None, "adamw"),
        (Settings(init="a-model"), "adamw", "adamw"), (Settings(init="a-model"), "muon", "muon"),
        (Settings(init="a-model", lora=2), "muon", "adamw"),
        (Settings(optimiser="adamw"), "muon", "adamw"), (Settings(init="a-model", optimiser="muon"), None, "muon"),
    ],
)  # fmt: skip
def test_muon_is_for_random_weights_and_for_what_it_trained(
    settings: Settings, trained_by: str | None, expected: str
) -> None:
    assert choose_optimiser(settings, trained_by) == expected


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_matrices_are_muons_where_it_was_chosen(optimiser: str) -> None:
    optimisers = build_optimisers(learner(), Settings(optimiser=optimiser))
    assert [type(one).__name__ for one in optimisers] == ["AdamW", "Muon"][: 1 + (optimiser == "muon")]


def test_layer_decay_counts_from_the_head() -> None:
    found = groups_by_name(Settings(layer_decay=0.5, learning_rate=1.0, optimiser="adamw"), learner())
    assert found["objectives.supervised.head.weight"][1] == 1.0
    assert found["backbone.norm.weight"][1] == 1.0
    assert found["backbone.blocks.3.attention.qkv.weight"][1] == 0.5
    assert found["backbone.blocks.0.attention.qkv.weight"][1] == 0.5**4
    assert found["backbone.stem.weight"][1] == 0.5**5


def test_orthogonalise_flattens_the_spectrum() -> None:
    matrices = torch.randn(3, 24, 40) @ torch.diag(torch.logspace(0, -1.5, 40))
    for shape in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalise(shape).float())
        assert values.max() < 1.3
        assert values.min() > 0.4
        cosine = nn.functional.cosine_similarity(orthogonalise(shape).flatten(1), shape.flatten(1))
        assert bool((cosine > 0.3).all())


def test_a_stack_of_matrices_is_orthogonalised_one_by_one() -> None:
    whole, parts = nn.Parameter(torch.zeros(6, 4)), [nn.Parameter(torch.zeros(2, 4)) for _ in range(3)]
    whole.grad = torch.randn(6, 4)
    for part, gradient in zip(parts, whole.grad.chunk(3), strict=True):
        part.grad = gradient.clone()
    Muon([{"params": [whole], "parts": 3}]).step()
    Muon(parts).step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]), atol=1e-4, rtol=0)


def test_muon_equals_a_slow_loop() -> None:
    torch.manual_seed(1)
    weights = [nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5, 2, 3, 3))]
    expected = [weight.detach().clone() for weight in weights]
    momenta = [torch.zeros_like(weight) for weight in weights]
    optimiser = Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        for number, weight in enumerate(weights):
            gradient = torch.randn_like(weight)
            weight.grad = gradient.clone()
            momenta[number] = 0.9 * momenta[number] + 0.1 * gradient
            ahead = (0.9 * momenta[number] + 0.1 * gradient).flatten(1)
            update = orthogonalise(ahead[None])[0]
            if weight.ndim == 4:
                start = expected[number] * 5**0.5 / expected[number].norm()
                expected[number] = start - 0.1 * 5 * update.view_as(weight)
            else:
                update = update * max(1, ahead.shape[0] / ahead.shape[1]) ** 0.5
                expected[number] = expected[number] * (1 - 0.1 * 0.01) - 0.1 * update
        optimiser.step()
    for weight, wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), wanted, atol=2e-3, rtol=0)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_start_peak_and_end(schedule: str) -> None:
    settings = Settings(schedule=schedule, warmup=0.1)
    assert rate_at(0.0, settings) == 0
    assert rate_at(0.05, settings) == pytest.approx(0.5)
    assert rate_at(0.1, settings) == pytest.approx(1)
    assert rate_at(0.55, settings) == pytest.approx(0.5)
    assert rate_at(1.0, settings) == pytest.approx(0)
    assert rate_at(0.0, Settings(schedule=schedule, warmup=0.0)) == pytest.approx(1)


def test_rates_scale_each_groups_own_peak() -> None:
    optimisers = build_optimisers(learner(), Settings(layer_decay=0.5, optimiser="muon"))
    set_rates(optimisers, 0.25)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            assert group["lr"] == group["peak"] * 0.25
