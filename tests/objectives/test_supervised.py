"""Against cross-entropy as torch has it, and the formulas of the papers."""

import pytest
import torch
from torch.nn import functional as F

from mirada.backbones import build
from mirada.data.samples import Samples
from mirada.errors import MiradaError
from mirada.objectives.supervised import Supervised, mix, one_hot


def batch(count: int = 6) -> dict[str, torch.Tensor]:
    return {"image": torch.randn(count, 3, 16, 16), "label": torch.arange(count) % 4}


def objective(**options: object) -> tuple[Supervised, torch.nn.Module]:
    torch.manual_seed(0)
    backbone = build("vit-pico/4(depth=1, image_size=16)").eval()
    made = Supervised(backbone, classes=4, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(made.head.weight)
    return made, backbone


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torch(smoothing: float) -> None:
    made, backbone = objective(smoothing=smoothing)
    data = batch()
    logits = made.head(backbone(data["image"]).pooled)
    result = made(backbone, data, 0.0)
    torch.testing.assert_close(result["loss"], F.cross_entropy(logits, data["label"], label_smoothing=smoothing))
    torch.testing.assert_close(result["accuracy"], (logits.argmax(1) == data["label"]).float().mean())


def test_a_batch_without_labels_has_no_accuracy() -> None:
    made, backbone = objective()
    nothing = made(backbone, batch() | {"label": torch.full((len(batch()["label"]),), -1)}, 0.0)
    assert list(nothing) == ["loss"]
    assert nothing["loss"].item() == 0
    nothing["loss"].backward()


def test_class_weights_equal_torch() -> None:
    made, backbone = objective(smoothing=0.0, balanced=True, counts=[10, 1, 5, 2])
    data = batch()
    logits = made.head(backbone(data["image"]).pooled)
    weight = 1 / torch.tensor([10.0, 1, 5, 2])
    torch.testing.assert_close(made(backbone, data, 0.0)["loss"], F.cross_entropy(logits, data["label"], weight=weight))


def test_a_rare_class_is_not_taught_where_it_is_not() -> None:
    made, backbone = objective(smoothing=0.1, balanced=True, counts=[4000, 100, 100, 100])
    made.head.weight.data.zero_()
    data = {"image": torch.randn(1, 3, 16, 16), "label": torch.tensor([0])}
    optimiser = torch.optim.LBFGS([made.head.bias], max_iter=100)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = made(backbone, data, 0.0)["loss"]
        value.backward()
        return value

    optimiser.step(loss)
    torch.testing.assert_close(made.head.bias.softmax(0), torch.tensor([0.925, 0.025, 0.025, 0.025]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("balanced", [False, True])
def test_chance_is_the_best_that_the_frequencies_of_the_classes_allow(balanced: bool) -> None:
    counts = [10, 1, 5, 2]
    made, backbone = objective(smoothing=0.1, balanced=balanced, counts=counts)
    made.head.weight.data.zero_()
    guess = torch.zeros(4, requires_grad=True)
    label = torch.arange(4).repeat_interleave(torch.tensor(counts))
    weight = made.class_weight
    optimiser = torch.optim.LBFGS([guess], max_iter=100)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        target = one_hot(label, 4) * 0.9 + 0.1 / 4
        value = -(target * weight[label, None] * guess.log_softmax(0)).sum() / weight[label].sum()
        value.backward()
        return value

    optimiser.step(loss)
    made.head.bias.data = guess.detach()
    result = made(backbone, {"image": torch.randn(18, 3, 16, 16), "label": label}, 0.0)
    torch.testing.assert_close(result["relative_loss"], torch.tensor(1.0), rtol=1e-4, atol=0)
    one = made(backbone, {"image": torch.randn(1, 3, 16, 16), "label": label[:1]}, 0.0)
    torch.testing.assert_close(one["relative_loss"], torch.tensor(1.0), rtol=1e-4, atol=0)


def test_another_number_of_classes_than_the_data_have() -> None:
    with pytest.raises(MiradaError, match="The data have 3 classes, and supervised is told of 4: leave classes out"):
        objective(counts=[1, 2, 3])


def test_labelled_images_are_mixed_with_labelled_ones_only() -> None:
    image = torch.eye(4)[:, :, None, None].expand(4, 4, 20, 20)
    target = one_hot(torch.tensor([0, -1, 2, -1]), 4)
    for seed in range(20):
        mixed, shares = mix(image, target, 0.8, 1.0, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(shares[[0, 2]], mixed[[0, 2]].mean((2, 3)), atol=1e-5, rtol=0)
        assert torch.equal(mixed[[1, 3]], image[[1, 3]])
        assert not shares[[1, 3]].any()


def test_a_negative_alpha_is_refused() -> None:
    with pytest.raises(MiradaError, match="mixup and cutmix cannot be -1"):
        objective(mixup=-1)


def test_unlabelled_samples_take_no_part() -> None:
    made, backbone = objective()
    data = batch()
    half = {"image": data["image"], "label": torch.where(torch.arange(6) < 3, data["label"], -1)}
    alone = {key: value[:3] for key, value in data.items()}
    torch.testing.assert_close(made(backbone, half, 0.0)["loss"], made(backbone, alone, 0.0)["loss"])
    nobody = {"image": data["image"], "label": torch.full((6,), -1)}
    assert made(backbone, nobody, 0.0)["loss"].item() == 0


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_targets_are_the_share_of_pixels(mixup: float, cutmix: float) -> None:
    image = torch.eye(4)[:, :, None, None].expand(4, 4, 20, 20)  # channel c is 1 in image c
    target = one_hot(torch.arange(4), 4)
    for seed in range(20):
        mixed, shares = mix(image, target, mixup, cutmix, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(shares, mixed.mean((2, 3)), atol=1e-5, rtol=0)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))


def test_an_unlabelled_partner_silences_the_mixture() -> None:
    target = one_hot(torch.tensor([0, -1]), 2)
    _, shares = mix(torch.rand(2, 3, 8, 8), target, 1.0, 0.0, torch.Generator().manual_seed(1))
    assert set(shares.sum(1).tolist()) <= {0.0, 1.0}


def test_views_mix_only_when_asked() -> None:
    half = torch.full((3,), 0.5)
    canvases = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    made, _ = objective(mixup=0.5)
    plain, _ = objective()
    facts = {"size": (16, 16), "seed": 0, "mean": half, "std": half}
    samples = Samples(canvases, torch.ones(4), torch.arange(4), **facts)  # type: ignore[arg-type]
    assert made.views(samples).keys() == {"image", "label", "target"}
    assert plain.views(samples).keys() == {"image", "label"}
