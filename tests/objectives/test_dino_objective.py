"""DINO's loss, centre and teacher against plain loops; its options; and SwAV, which shares its crops."""

import pytest
import torch
from learners import samples
from torch import Tensor
from torch.nn import functional as F

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.objectives import DINO, SwAV
from mirada.objectives.masks import masks_of_half
from mirada.objectives.regularisers import gram, koleo
from mirada.objectives.sinkhorn import sinkhorn
from mirada.objectives.teacher import momentum_at
from mirada.train.freeze import freeze

MODEL = "vit-pico/4(depth=1, image_size=16)"


def made(**options: object) -> tuple[torch.nn.Module, DINO, dict[str, Tensor]]:
    torch.manual_seed(0)
    backbone = build(MODEL)
    objective = DINO(backbone, prototypes=16, small=2, **options)  # type: ignore[arg-type]
    return backbone, objective, objective.views(samples())


def test_crops() -> None:
    _, objective, batch = made()
    assert {name: tuple(view.shape) for name, view in batch.items()} == {
        "large_0": (8, 3, 16, 16), "large_1": (8, 3, 16, 16), "small_0": (8, 3, 8, 8), "small_1": (8, 3, 8, 8),
    }  # fmt: skip
    assert objective.pooled == tuple(batch)
    assert not torch.equal(batch["small_0"], batch["small_1"])


def test_the_loss_is_the_papers() -> None:
    """Algorithm 1 of arXiv:2104.14294, over all pairs of crops but a crop and itself."""
    backbone, objective, batch = made(centring="mean", teacher_temperature=0.05, early_temperature=0.04, warm=0.5)
    objective.get_buffer("centre").copy_(torch.randn(16))
    centre = objective.get_buffer("centre").clone()
    found = objective(backbone, batch, 0.25)
    student = [objective.head(backbone(view).pooled) / 0.1 for view in batch.values()]
    teacher = [objective.teacher_head(objective.teacher(batch[name]).pooled) for name in ("large_0", "large_1")]
    total, pairs = torch.zeros(()), 0
    for t, raw in enumerate(teacher):
        target = ((raw - centre) / 0.045).softmax(1)
        for s, scores in enumerate(student):
            if s != t:
                total, pairs = total - (target * scores.log_softmax(1)).sum(1).mean(), pairs + 1
    assert pairs == 6
    torch.testing.assert_close(found["loss"], total / pairs)
    parameters = [*backbone.parameters(), *objective.head.parameters()]
    ours, theirs = (torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True)
                    for one in (found["loss"], total / pairs))  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(objective.get_buffer("centre"), 0.9 * centre + 0.1 * torch.cat(teacher).mean(0))
    entropy = -torch.stack([((raw - centre) / 0.045).softmax(1).mul(((raw - centre) / 0.045).log_softmax(1)).sum(1)
                            for raw in teacher]).mean()  # fmt: skip
    torch.testing.assert_close(found["teacher_entropy"], entropy)
    torch.testing.assert_close(found["kl"], found["loss"] - entropy)


def test_no_gradient_reaches_the_teacher_and_it_follows_slowly() -> None:
    backbone, objective, batch = made(momentum=0.9)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1)
    before = [parameter.clone() for parameter in objective.teacher.parameters()]
    objective(backbone, batch, 0.0)["loss"].backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    objective.after_step(backbone, 0.0)
    for old, new, student in zip(before, objective.teacher.parameters(), backbone.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)
    assert (momentum_at(0.0, 0.9), momentum_at(1.0, 0.9)) == (pytest.approx(0.9), 1.0)


def test_the_last_layer_keeps_its_place_at_first() -> None:
    backbone, objective, batch = made(freeze=0.5)
    weight = objective.head.prototypes.weight
    objective(backbone, batch, 0.4)["loss"].backward()
    assert weight.grad is not None
    assert not weight.grad.any()
    objective(backbone, batch, 0.6)["loss"].backward()
    assert weight.grad.any()


def test_sinkhorn_in_place_of_the_centre() -> None:
    backbone, objective, batch = made(centring="sinkhorn", small_share=1.0)
    target = sinkhorn(
        objective.teacher_head(objective.teacher(torch.cat([batch["large_0"], batch["large_1"]])).pooled), 0.04
    )
    entropy = -(target * target.clamp(min=1e-12).log()).sum(1).mean()
    torch.testing.assert_close(objective(backbone, batch, 0.0)["teacher_entropy"], entropy)
    assert not objective.get_buffer("centre").any()
    assert objective.evaluated() is objective.teacher


@pytest.mark.parametrize("model", [MODEL, "resnet-18(small_images=True, widths=(8, 8, 8, 8), stem_width=8)"])
def test_everything_at_once_learns(model: str) -> None:
    torch.manual_seed(0)
    backbone = build(model)
    objective = DINO(
        backbone, prototypes=16, small=1, masked=1.0, koleo=0.1, gram=1.0, gram_start=0.2, centring="sinkhorn"
    )
    optimiser = torch.optim.AdamW(
        [p for p in [*backbone.parameters(), *objective.parameters()] if p.requires_grad], 2e-3
    )
    batch, masked = objective.views(samples()), []
    for step in range(10):
        result = objective(backbone, batch, step / 10)
        optimiser.zero_grad()
        result["loss"].backward()
        optimiser.step()
        objective.after_step(backbone, step / 10)
        masked.append(result["masked"].item())
        assert ("gram" in result) == (step > 2)
    assert model != MODEL or masked[-1] < masked[0]
    assert [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None] == []


def test_hidden_patches_are_asked_of_the_teacher_who_sees_them() -> None:
    """iBOT's loss against a loop: the teacher sees all, every image that hides patches has the same say, and the mean
    is that over all images, as in the authors' code."""
    backbone, objective, batch = made(masked=1.0)
    torch.manual_seed(3)
    found = objective(backbone, batch, 0.0)["masked"]
    torch.manual_seed(3)
    masks, images = masks_of_half(16, (4, 4)), torch.cat([batch["large_0"], batch["large_1"]])
    stem = backbone.embed(images)
    stem[masks] = objective.mask_token
    scores = objective.patch_head(backbone.encode(stem).patches[masks]) / 0.1
    target = sinkhorn(objective.teacher_patch_head(objective.teacher(images).patches[masks]), 0.04)
    owners = masks.nonzero()[:, 0].tolist()
    losses: dict[int, list[Tensor]] = {}
    for owner, taught, said in zip(owners, target, scores.log_softmax(1), strict=True):
        losses.setdefault(owner, []).append(-(taught * said).sum())
    assert len(losses) == 8
    assert len({len(values) for values in losses.values()}) > 1
    wanted = torch.stack([torch.stack(one).mean() for one in losses.values()]).sum() / len(images)
    torch.testing.assert_close(found, wanted)
    parameters = [objective.mask_token, *backbone.blocks.parameters()]
    ours, theirs = (torch.autograd.grad(one, parameters, allow_unused=True) for one in (found, wanted))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_the_anchor_is_the_teacher_of_gram_start_and_without_noise() -> None:
    torch.manual_seed(0)
    backbone = build("vit-pico/4(depth=2, image_size=16, drop_path=0.5)")
    objective = DINO(backbone, prototypes=16, small=0, gram=1.0, gram_start=0.5, momentum=0.5).train()
    batch = objective.views(samples())
    for progress in (0.4, 0.5, 0.6):
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(0.1)
        objective.after_step(backbone, progress)
        if progress == 0.5:
            wanted = {name: value.clone() for name, value in objective.teacher.state_dict().items()}
    assert all(torch.equal(value, wanted[name]) for name, value in objective.anchor.state_dict().items())
    assert objective.anchor(batch["large_0"]).pooled.equal(objective.anchor(batch["large_0"]).pooled)
    assert "gram" in objective(backbone, batch, 0.6)
    # A run that goes on from this one starts before `gram_start`.
    assert "gram" not in objective(backbone, batch, 0.1)
    objective.after_step(backbone, 0.1)
    objective.after_step(backbone, 0.6)
    assert all(torch.equal(value, objective.anchor.state_dict()[name])
               for name, value in objective.teacher.state_dict().items())  # fmt: skip


def test_koleo_is_the_mean_log_distance_to_the_nearest() -> None:
    features = torch.randn(6, 4, requires_grad=True)
    unit = F.normalize(features, dim=1)
    nearest = torch.stack([min((a - b).norm() for j, b in enumerate(unit) if j != i) for i, a in enumerate(unit)])
    torch.testing.assert_close(koleo(features), -nearest.log().mean(), rtol=1e-4, atol=1e-6)
    ours, theirs = (torch.autograd.grad(one, features)[0] for one in (koleo(features), -nearest.log().mean()))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_gram_compares_similarities_and_not_features() -> None:
    patches = torch.randn(2, 5, 4, requires_grad=True)
    rotation = torch.linalg.qr(torch.randn(4, 4)).Q
    assert gram(patches, 3 * patches @ rotation).item() == pytest.approx(0, abs=1e-10)
    other = torch.randn(2, 5, 4)
    pairs = [(b, i, j) for b in range(2) for i in range(5) for j in range(5)]
    ours, theirs = (
        torch.stack([F.cosine_similarity(x[b, i], x[b, j], 0) for b, i, j in pairs]) for x in (patches, other)
    )
    errors = (ours - theirs) ** 2
    torch.testing.assert_close(gram(patches, other), errors.mean())
    ours, theirs = (torch.autograd.grad(one, patches)[0] for one in (gram(patches, other), errors.mean()))
    torch.testing.assert_close(ours, theirs)


def test_batch_norm_of_the_teacher_sees_its_batch() -> None:
    backbone = build("resnet-18(small_images=True, widths=(8, 8, 8, 8), stem_width=8)")
    objective = DINO(backbone, small=0).train()
    kinds = {type(module).__name__: module.training for module in objective.teacher.modules()}
    assert kinds["BatchNorm2d"]
    assert not kinds["ResNet"]
    freeze(backbone, -1)
    frozen = DINO(backbone, small=0).train().teacher
    before = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    frozen(torch.randn(4, 3, 16, 16))
    assert all(torch.equal(buffer, before[name]) for name, buffer in frozen.named_buffers())


def test_bad_options() -> None:
    with pytest.raises(MiradaError, match="choose mean or sinkhorn"):
        made(centring="median")
    with pytest.raises(MiradaError, match="cannot be -1 small crops"):
        DINO(build(MODEL), small=-1)
    for kind in (DINO, SwAV):
        with pytest.raises(MiradaError, match="by 1 prototypes: use 2 or more"):
            kind(build(MODEL), prototypes=1)
    for option in ("student_temperature", "teacher_temperature", "early_temperature"):
        with pytest.raises(MiradaError, match="divides nothing"):
            DINO(build(MODEL), **{option: 0})
    for option in ("temperature", "epsilon"):
        with pytest.raises(MiradaError, match="divides nothing"):
            SwAV(build(MODEL), **{option: 0})
    with pytest.raises(MiradaError, match="cannot be a queue of -1"):
        SwAV(build(MODEL), queue=-1)


def test_swav_swaps() -> None:
    """Equation 2 of arXiv:2006.09882, for two large crops and a small one."""
    backbone = build(MODEL)
    objective = SwAV(backbone, prototypes=6, small=1, epsilon=0.05).eval()
    batch = objective.views(samples())
    found = objective(backbone, batch, 0.5)["loss"]
    features = F.normalize(objective.head(torch.cat([backbone(view).pooled for view in batch.values()])), dim=1)
    scores = (features @ F.normalize(objective.prototypes.weight, dim=1).mT).chunk(3)
    losses = [-(sinkhorn(scores[t]) * (scores[v] / 0.1).log_softmax(1)).sum(1).mean()
              for t in (0, 1) for v in (0, 1, 2) if t != v]  # fmt: skip
    torch.testing.assert_close(found, torch.stack(losses).mean())
    parameters = [*objective.head.parameters(), objective.prototypes.weight]
    ours, theirs = (torch.autograd.grad(one, parameters, retain_graph=True)
                    for one in (found, torch.stack(losses).mean()))  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_swavs_queue_takes_part_when_it_is_full() -> None:
    backbone = build(MODEL)
    objective = SwAV(backbone, prototypes=6, small=0, queue=16, queue_start=0.5)
    batch = objective.views(samples())
    first = objective(backbone, batch, 0.9)["loss"]
    assert int(objective.get_buffer("queued")) == 8
    assert objective.get_buffer("queue")[:, :8].any()
    assert not objective.get_buffer("queue")[:, 8:].any()
    torch.testing.assert_close(first, objective(backbone, batch, 0.9)["loss"])  # it is full after this assignment only
    others = F.normalize(torch.randn(2, 16, 128), dim=2)
    losses = []
    for progress in (0.1, 0.9):
        objective.get_buffer("queue").copy_(others)
        losses.append(objective(backbone, batch, progress)["loss"])
    torch.testing.assert_close(losses[0], first)  # not before `queue_start`
    assert losses[1] != losses[0]


def test_swavs_queue_keeps_the_newest() -> None:
    backbone = build(MODEL)
    objective = SwAV(backbone, prototypes=6, small=0, queue=12)
    batch = objective.views(samples())
    newest = F.normalize(objective.head(torch.cat([backbone(batch[name]).pooled for name in objective.pooled])), dim=1)
    before = F.normalize(torch.randn(2, 12, 128), dim=2)
    objective.get_buffer("queue").copy_(before)
    objective(backbone, batch, 0.0)
    torch.testing.assert_close(objective.get_buffer("queue")[:, :8], newest.view(2, 8, -1))
    assert torch.equal(objective.get_buffer("queue")[:, 8:], before[:, :4])


def test_swavs_prototypes_keep_their_place_at_first() -> None:
    backbone = build(MODEL)
    objective = SwAV(backbone, prototypes=6, small=0, freeze=0.5)
    batch = objective.views(samples())
    objective(backbone, batch, 0.4)["loss"].backward()
    weight = objective.prototypes.weight
    assert weight.grad is None or not weight.grad.any()
    objective(backbone, batch, 0.6)["loss"].backward()
    assert weight.grad is not None
    assert weight.grad.any()
