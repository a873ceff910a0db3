"""A batch in parts has the gradient of the whole batch, also where its samples are compared."""

import pytest
import torch
from learners import learner, samples

from mirada.data.samples import Samples
from mirada.objectives import Learner
from mirada.train.parts import gradients

HALF = torch.full((3,), 0.5, dtype=torch.float64)


def part(module: Learner, number: int, size: int) -> dict[str, dict[str, torch.Tensor]]:
    whole = samples(8)
    mine = slice(number * size, (number + 1) * size)
    views = module.views(Samples(whole.canvases[mine], whole.aspect[mine], whole.labels[mine], size=(16, 16),
                                 seed=number, mean=HALF, std=HALF, captions=whole.captions[mine]))  # fmt: skip
    return {name: {key: value.double() if value.is_floating_point() else value for key, value in some.items()}
            for name, some in views.items()}  # fmt: skip


@pytest.mark.parametrize("text", [
    "clip", "siglip(hardness=1.0)", "simclr", "0.5*clip + rotation", "supervised", "simclr + 2*siglip + supervised",
])  # fmt: skip
@pytest.mark.parametrize("size", [2, 4])
def test_as_the_whole_batch(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = learner(text).double()
    largest: list[int] = []
    embed = module.backbone.embed

    def counted(images: torch.Tensor) -> torch.Tensor:
        largest.append(len(images))
        return embed(images)

    monkeypatch.setattr(module.backbone, "embed", counted)
    parts = [part(module, number, size) for number in range(8 // size)]
    found = gradients(module, lambda number: parts[number], len(parts), 0.3, seed=5, half=False,
                      device=torch.device("cpu"))  # fmt: skip
    in_parts = {name: parameter.grad.clone() for name, parameter in module.named_parameters()
                if parameter.grad is not None}  # fmt: skip
    most, largest[:] = max(largest), []
    module.zero_grad()
    whole = {name: {key: torch.cat([one[name][key] for one in parts]) for key in parts[0][name]} for name in parts[0]}
    expected = module(whole, 0.3)
    expected["loss"].backward()
    assert most < max(largest)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach().float(), rtol=1e-5, atol=1e-6)
    assert in_parts.keys() == {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(in_parts[name], parameter.grad, rtol=1e-6, atol=1e-9)


def test_a_frozen_network_trains_the_heads_of_those_that_compare() -> None:
    module = learner("simclr").double()
    module.backbone.requires_grad_(False)
    parts = [part(module, number, 4) for number in range(2)]
    gradients(module, lambda number: parts[number], 2, 0.3, seed=5, half=False, device=torch.device("cpu"))
    assert all(parameter.grad is not None for parameter in module.objectives.parameters())


def test_a_part_without_labels_does_not_count_for_their_accuracy() -> None:
    module = learner("supervised").double()
    parts = [part(module, number, 4) for number in range(2)]
    alone = module(parts[0], 0.3)["supervised/accuracy"]
    parts[1]["supervised"]["label"].fill_(-1)
    found = gradients(module, lambda number: parts[number], 2, 0.3, seed=5, half=False, device=torch.device("cpu"))
    torch.testing.assert_close(found["supervised/accuracy"], alone.float())


@pytest.mark.parametrize("text", ["clip", "clip + rotation"])
def test_what_is_random_in_the_network_is_the_same_in_both_passes(text: str) -> None:
    module = learner(text, "vit-pico/4(depth=2, image_size=16, drop_path=0.5)")
    parts = [part(module, number, 4) for number in range(2)]
    parts = [{name: {key: value.float() if value.is_floating_point() else value for key, value in some.items()}
              for name, some in one.items()} for one in parts]  # fmt: skip
    seen: list[torch.Tensor] = []
    represent = module.objectives["clip"].represent

    def kept(backbone: object, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        result = represent(backbone, batch)
        seen.append(result["image"].detach())
        return result

    module.objectives["clip"].represent = kept  # type: ignore[method-assign]
    gradients(module, lambda number: parts[number], 2, 0.3, seed=5, half=False, device=torch.device("cpu"))
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
