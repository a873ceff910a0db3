"""CLIP and SigLIP: the papers' formulas, open_clip's losses, and which pairs count."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from learners import learner, samples
from peers import import_torchvision
from torch import Tensor
from torch.nn import functional as F

from mirada.backbones import build
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.model import Model
from mirada.objectives import CLIP, Pairs, SigLIP, siglip
from mirada.objectives.contrast import matched
from mirada.objectives.siglip import sigmoid_loss
from mirada.preprocess import Preprocess
from mirada.text import TextDesign

TINY = "vit-pico/4(depth=1, image_size=16)"


def unit(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    raw = torch.randn(2, count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    image, text = F.normalize(raw, dim=2)
    return image.requires_grad_(), text.requires_grad_()


def batch_of(module: Any, captions: list[tuple[str, ...]]) -> dict[str, Tensor]:
    given = samples(len(captions))
    half = torch.full((3,), 0.5)
    return module.views(Samples(given.canvases, given.aspect, given.labels, size=(16, 16), seed=1, mean=half, std=half,
                                captions=captions))  # fmt: skip


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves)


def test_clip_as_its_pseudo_code_and_as_open_clip() -> None:
    import_torchvision()
    from open_clip.loss import ClipLoss

    image, text = unit(7)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    ours = (matched(image, text, scale)[0] + matched(text, image, scale)[0]) / 2
    logits = scale * image @ text.T  # figure 3 of arXiv:2103.00020
    labels = torch.from_numpy(np.arange(7))
    paper = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    peer = ClipLoss()(image, text, scale)
    for other in (paper, peer):
        torch.testing.assert_close(ours, other)
        torch.testing.assert_close(gradients(ours + 0, image, text, scale), gradients(other, image, text, scale))
        ours = (matched(image, text, scale)[0] + matched(text, image, scale)[0]) / 2


@pytest.mark.parametrize("held", [1024, 3])
def test_siglip_as_its_pseudo_code_and_as_open_clip(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import_torchvision()
    from open_clip.loss import SigLipLoss

    monkeypatch.setattr(siglip, "ROWS", held)
    image, text = unit(7)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    leaves = (image, text, scale, bias)
    ours, _ = sigmoid_loss(image, text, scale, bias)
    total = torch.zeros((), dtype=torch.float64)  # equation 1 of arXiv:2303.15343, pair by pair
    for i in range(7):
        for j in range(7):
            z = 1 if i == j else -1
            total = total - torch.log(1 / (1 + torch.exp(z * (-scale * (image[i] @ text[j]) - bias))))
    paper = total / 7
    peer = SigLipLoss()(image, text, scale, bias)
    found = gradients(ours, *leaves)
    for other in (paper, peer):
        torch.testing.assert_close(ours.detach(), other.detach())
        torch.testing.assert_close(found, gradients(other, *leaves))


def test_harder_others_count_more_in_siglip_too() -> None:
    image, text = (vectors.detach() for vectors in unit(4))
    scale, bias = torch.tensor(5.0), torch.tensor(-3.0)
    found, _ = sigmoid_loss(image, text, scale, bias, hardness=2.0)
    total = 0.0
    for i in range(4):
        others = [j for j in range(4) if j != i]
        weights = [math.exp(2.0 * float(image[i] @ text[j])) for j in others]
        mean = sum(weights) / 3
        logit = [float(scale * (image[i] @ text[j]) + bias) for j in range(4)]
        total += math.log1p(math.exp(-logit[i]))
        total += sum(w / mean * math.log1p(math.exp(logit[j])) for w, j in zip(weights, others, strict=True))
    assert float(found) == pytest.approx(total / 4)


@pytest.mark.parametrize("kind", [CLIP, SigLIP])
def test_images_of_one_caption_are_no_others_of_each_other(kind: type[CLIP] | type[SigLIP]) -> None:
    backbone = build(TINY)
    module = kind(backbone, pairs=Pairs([("a cat",), ("a dog",), ("a fish",)]))
    names = [("a cat",), ("a dog",), ("A CAT",), ("a fish",)]
    batch = batch_of(module, names)
    whole = module.represent(backbone, batch)
    whole["text"] = whole["text"][:, 0]
    found = module.compare(whole | {"text": whole["text"][:, None]}, 0.0)["loss"]
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    expected = module.contrast(whole["image"], whole["text"], same)["loss"]
    torch.testing.assert_close(found, expected)
    assert float(found.detach()) != float(module.contrast(whole["image"], whole["text"], None)["loss"].detach())


def test_one_of_several_captions_is_drawn_each_time() -> None:
    module = CLIP(build(TINY), pairs=Pairs([("one", "two", "three")]))
    half = torch.full((3,), 0.5)
    seen = set()
    for seed in range(20):
        views = module.views(Samples(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.ones(2), torch.zeros(2).long(),
                                     size=(16, 16), seed=seed, mean=half, std=half,
                                     captions=[("one", "two", "three"), ("one", "two", "three")]))  # fmt: skip
        seen |= set(views["caption"][:, 0].tolist())
        assert views["captions"][0] == views["captions"][1]
    assert len(seen) == 3


def test_several_captions_of_an_image_at_a_time() -> None:
    backbone = build(TINY)
    module = CLIP(backbone, pairs=Pairs([("a", "b", "c")]), each=2)
    batch = batch_of(module, [("a", "b", "c"), ("d",), ("e", "f")])
    assert batch["ids"].shape == (3, 2, 32)
    assert batch["caption"][1, 0] == batch["caption"][1, 1]  # there is one only
    assert all(batch["caption"][row, 0] != batch["caption"][row, 1] for row in (0, 2))
    whole = module.represent(backbone, batch)
    alone = [module.contrast(whole["image"], whole["text"][:, drawn], None)["loss"] for drawn in range(2)]
    torch.testing.assert_close(module.compare(whole, 0.0)["loss"], torch.stack(alone).mean())
    with pytest.raises(MiradaError, match="cannot have 0 captions drawn"):
        CLIP(backbone, pairs=Pairs([("a",)]), each=0)


def test_images_without_a_caption_take_no_part() -> None:
    backbone = build(TINY)
    module = CLIP(backbone, pairs=Pairs([("a cat",), ("a dog",)]))
    some = module(backbone, batch_of(module, [("a cat",), (), ("a dog",), ()]), 0.0)
    assert float(some["others"]) == 1
    nothing = module(backbone, batch_of(module, [("a cat",), (), ()]), 0.0)
    nothing["loss"].backward()
    assert nothing["loss"].item() == 0
    assert not any(parameter.grad.any() for parameter in backbone.parameters() if parameter.grad is not None)
    with pytest.raises(MiradaError, match="use a batch of 2 or more"):
        module(backbone, batch_of(module, [("a cat",)]), 0.0)
    with pytest.raises(MiradaError, match=r"None of these images has a caption: put a \.txt"):
        CLIP(backbone, pairs=Pairs([(), ()]))


def test_the_scale_stays_below_its_bound() -> None:
    module = learner("clip")
    clip = module.towers()
    assert clip is not None
    with torch.no_grad():
        clip.text.logit_scale.fill_(9.0)
    module.after_step(0.5)
    assert float(clip.text.logit_scale.detach().exp()) == pytest.approx(100)


def test_a_published_siglip_keeps_its_scale() -> None:
    module = learner("siglip")
    siglip = module.objectives["siglip"]
    with torch.no_grad():
        siglip.text.logit_scale.fill_(4.8)  # as SigLIP SO400M has it: 121
    module.after_step(0.5)
    assert float(siglip.text.logit_scale.detach()) == pytest.approx(4.8)


def two_towers(bias: bool) -> Model:
    return Model("vit-pico/4(depth=1, image_size=16)", build(TINY), Preprocess(size=(16, 16)),
                 text=TextDesign(width=16, depth=1, num_heads=2, hidden=16, dim=64, bias=bias))  # fmt: skip


def test_a_published_tower_is_trained_on_and_not_with_the_other_loss() -> None:
    model = two_towers(bias=False)
    pairs = Pairs([("a cat",)], model)
    clip = CLIP(model.backbone, pairs=pairs)
    assert clip.text is model.text
    assert clip.tokenizer is model.tokenizer
    with pytest.raises(MiradaError, match="train it with the objective clip, not siglip"):
        SigLIP(model.backbone, pairs=pairs)
    with pytest.raises(MiradaError, match="train it with the objective siglip, not clip"):
        CLIP(model.backbone, pairs=Pairs([("a cat",)], two_towers(bias=True)))


@pytest.mark.parametrize(("name", "free"), [("clip", ["logit_scale"]), ("siglip", ["logit_scale", "logit_bias"])])
def test_a_locked_text_tower_keeps_its_weights(name: str, free: list[str]) -> None:
    """But not what belongs to the pair of towers."""
    module = learner(f"{name}(locked=True)")
    module(module.views(samples()), 0.0)["loss"].backward()
    moved = {name for name, parameter in module.objectives.named_parameters() if parameter.grad is not None}
    assert moved == {f"{name}.project.weight", *(f"{name}.text.{one}" for one in free)}


def test_guessing_costs_one() -> None:
    count = 16
    image = torch.ones(count, 4) / 2
    clip, siglip_objective = learner("clip").towers(), learner("siglip").towers()
    assert clip is not None
    assert siglip_objective is not None
    assert float(clip.contrast(image, image, None)["relative_loss"]) == pytest.approx(1)
    assert siglip_objective.text.logit_bias is not None
    with torch.no_grad():
        siglip_objective.text.logit_scale.fill_(-30.0)
        siglip_objective.text.logit_bias.fill_(-math.log(count - 1))
    assert float(siglip_objective.contrast(image, image, None)["relative_loss"]) == pytest.approx(1, abs=1e-3)
