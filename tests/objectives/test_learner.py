"""The little language and the Learner: sums, facts, shared forwards, pickled views."""

import pickle
from pathlib import Path

import pytest
import torch
from learners import learner, samples
from torch import Tensor

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.objectives import OBJECTIVES, Learner


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("model", ["vit-pico/4(depth=1, image_size=16)", "resnet-18(small_images=True)"])
def test_every_objective_learns_one_batch_on_every_family(name: str, model: str) -> None:
    module = learner(name, model)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 2e-3)
    measured: list[float] = []
    while not measured or measured[-1] >= 0.8 * measured[0]:
        progress = len(measured) / 40
        assert progress < 1, measured
        result = module(module.views(samples()), progress)
        assert result["loss"].ndim == 0
        optimiser.zero_grad()
        result["loss"].backward()
        optimiser.step()
        module.after_step(progress)
        # Where targets move, the loss moves with their entropy, and what is learned is the rest.
        measured.append(result.get(f"{name}/kl", result["loss"]).item())
    assert [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "model"),
    [("swav", "regnety-400mf(plan=((8, 1, 8), (16, 1, 8), (24, 1, 8), (32, 1, 8)))"),  # SEER
     ("simclr", "coatnet-0(widths=(32, 32, 32, 64, 64), depths=(1, 1, 1, 1))"),
     ("masked", "coatnet-0(widths=(32, 32, 32, 64, 64), depths=(1, 1, 1, 1))")],
)  # fmt: skip
def test_large_families_take_a_step(name: str, model: str) -> None:
    module = learner(name, model)
    module(module.views(samples(size=(64, 64))), 0.5)["loss"].backward()
    assert all(parameter.grad is not None for parameter in module.backbone.parameters())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_views_are_small_and_pickle(name: str) -> None:
    views = learner(name).views
    assert len(pickle.dumps(views)) < (4096 if name not in ("clip", "siglip") else 16384)  # with their vocabulary
    copied = pickle.loads(pickle.dumps(views))
    for ours, theirs in zip(views(samples())[name].values(), copied(samples())[name].values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_sum_is_the_weighted_sum_of_its_terms() -> None:
    module = learner("supervised + 0.25*rotation")
    batch = module.views(samples())
    result = module(batch, 0.0)
    alone = {name: module.objectives[name](module.backbone, batch[name], 0.0)["loss"] for name in batch}
    torch.testing.assert_close(result["loss"], alone["supervised"] + 0.25 * alone["rotation"])
    torch.testing.assert_close(result["rotation/loss"], alone["rotation"])
    scalars = {f"{name}/{key}" for name in batch for key in ("loss", "relative_loss", "accuracy")}
    assert scalars | {"loss"} == result.keys()


def test_all_views_of_one_shape_take_one_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    module = learner("supervised + rotation")
    calls: list[int] = []
    embed = module.backbone.embed

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return embed(images)

    monkeypatch.setattr(module.backbone, "embed", counted)
    module(module.views(samples(8)), 0.0)
    assert calls == [16]


def test_an_equal_view_is_encoded_once() -> None:
    from mirada.objectives.learner import SharedForward

    module = learner("supervised")
    image = module.views(samples())["supervised"]["image"]
    expected = module.backbone(image).pooled
    shared = SharedForward(module.backbone, [image, image], [image])
    torch.testing.assert_close(shared(image).pooled, expected)
    assert shared(image).pooled is shared(image).pooled is shared.pooled(image)
    shared = SharedForward(module.backbone, [], [image, image])
    torch.testing.assert_close(shared.pooled(image), expected)
    assert shared.pooled(image) is shared.pooled(image)
    other = image.flip(-1)
    torch.testing.assert_close(shared.pooled(other), module.backbone(other).pooled)


def test_sharing_changes_nothing() -> None:
    module = learner("supervised + rotation").eval()
    batch = module.views(samples())
    image = batch["supervised"]["image"]
    together = module.objectives["supervised"](module.backbone, batch["supervised"], 0.0)["loss"]
    torch.testing.assert_close(module(batch, 0.0)["supervised/loss"], together)
    assert len(image) == 8


def test_options_in_the_text_win_over_facts() -> None:
    module = learner("supervised(smoothing=0.0, classes=7)")
    assert module.objectives["supervised"].head.out_features == 7
    assert module.objectives["supervised"].smoothing == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotatoin", "did you mean 'rotation'"),
        ("supervised(smoothign=1)", "no option 'smoothign'"),
        ("supervised + supervised", "stands twice"),
        ("-1*rotation", "Cannot read"),
        ("0*rotation", "must be above 0"),
        ("rotation(2)", "need names"),
        ("rotation(augment=open('x'))", "not a plain value"),
        ("rotation +", "write a sum"),
        ("", "write a sum"),
        ("supervised(classes=1)", "two classes or more"),
        ("rotation(augment='blury')", "no augmentation 'blury'"),
        ("supervised(smoothing='a')", "options of the objective 'supervised' do not fit together"),
        ("simclr(temperature='0.2')", "options of the objective 'simclr' do not fit together"),
        ("simclr(hidden=0)", "options of the objective 'simclr' do not fit together"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(MiradaError, match=message.replace("(", r"\(")):
        learner(text)


def test_who_is_evaluated() -> None:
    small = "dino(hidden=32, bottleneck=16, prototypes=32)"
    alone = learner(f"{small} + rotation")
    assert alone.evaluated() is alone.objectives["dino"].teacher
    for partner in ("supervised", "clip", "siglip"):  # whose head or words were trained on the student
        both = learner(f"{small} + {partner}")
        assert both.evaluated() is both.backbone


def test_a_missing_fact_is_named() -> None:
    with pytest.raises(MiradaError, match="needs classes: do these data have labels"):
        Learner(build("vit-pico/4"), "supervised")


def test_the_readme_of_each_objective_names_its_paper() -> None:
    import inspect

    for kind in OBJECTIVES.values():
        assert "arXiv:" in (inspect.getmodule(kind).__doc__ or "")
        assert Path(inspect.getfile(kind)).read_text().count("\n") < 160
