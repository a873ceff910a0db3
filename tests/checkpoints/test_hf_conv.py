"""transformers' ResNet and RegNet, from folders that `save_pretrained` wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exchange import exchanged, fits, shapes_of
from torch import Tensor, nn
from transformers import (
    ConvNextImageProcessor,
    RegNetConfig,
    RegNetForImageClassification,
    RegNetModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
)

from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.hf_conv import plan_regnet, plan_resnet
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.weights import find_weights
from mirada.errors import MiradaError
from mirada.model import Model

Parity = Callable[..., None]
Randomise = Callable[..., nn.Module]

PLANS: dict[str, Callable[..., Plan]] = {"resnet": plan_resnet, "regnet": plan_regnet}
LABELS = {"id2label": {0: "cat", 1: "dog", 2: "gato"}}
CONFIGS = {
    "basic": ResNetConfig(
        layer_type="basic", embedding_size=24, hidden_sizes=[16, 32, 48, 64], depths=[2, 1, 1, 2], **LABELS
    ),
    "bottleneck": ResNetConfig(embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[1, 2, 1, 1], **LABELS),
    "regnet": RegNetConfig(
        embedding_size=16, hidden_sizes=[16, 24, 40, 64], depths=[1, 2, 1, 1], groups_width=8, **LABELS
    ),
    "regnet of one group": RegNetConfig(hidden_sizes=[8, 16, 24, 40], depths=[1, 1, 2, 1], groups_width=64, **LABELS),
}


def loaded(folder: Path) -> tuple[Plan, Model]:
    files = LocalFiles(folder)
    config = files.json("config.json")
    assert config is not None
    weights = find_weights(files)
    plan = PLANS[config["model_type"]](config, files, weights.shapes)
    return plan, exchanged(plan, {name: weights.get(name) for name in weights.shapes})


def compare(ours: Model, body: Any, head: Any, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    with torch.no_grad():
        features = body(images)
        compared = {
            "encode_image": (ours.encode_image(images), features.pooler_output.flatten(1)),
            "patches": (ours.backbone(images).patches, features.last_hidden_state.permute(0, 2, 3, 1)),
        }
        return compared if head is None else compared | {"logits": (ours.logits(images), head(images).logits)}


@pytest.mark.parametrize("kind", CONFIGS)
def test_classifiers(kind: str, randomise: Randomise, parity: Parity, tmp_path: Path) -> None:
    config = CONFIGS[kind]
    of = ResNetForImageClassification if isinstance(config, ResNetConfig) else RegNetForImageClassification
    theirs: Any = randomise(of(config))
    theirs.save_pretrained(tmp_path)
    plan, ours = loaded(tmp_path)
    assert plan.design.classes == ("cat", "dog", "gato")
    body = theirs.resnet if isinstance(config, ResNetConfig) else theirs.regnet
    parity("transformers", f"{of.__name__}, {kind}", compare(ours, body, theirs, torch.randn(2, 3, 96, 70)))


@pytest.mark.parametrize("kind", ["basic", "regnet"])
def test_bodies_without_a_classifier(kind: str, randomise: Randomise, parity: Parity, tmp_path: Path) -> None:
    config = CONFIGS[kind]
    of = ResNetModel if isinstance(config, ResNetConfig) else RegNetModel
    theirs = randomise(of(config))
    theirs.save_pretrained(tmp_path)
    plan, ours = loaded(tmp_path)
    assert plan.design.classes is None
    parity("transformers", f"{of.__name__}, {kind}", compare(ours, theirs, None, torch.randn(2, 3, 64, 96)))


PUBLISHED = {  # facebook/regnet-y-*, microsoft/resnet-*: hidden sizes, depths, width of groups
    "regnety-32gf": ([232, 696, 1392, 3712], [2, 5, 12, 1], 232),
    "regnety-64gf": ([328, 984, 1968, 4920], [2, 5, 12, 1], 328),
    "regnety-128gf": ([528, 1056, 2904, 7392], [2, 7, 17, 1], 264),
    "regnety-10b": ([2020, 4040, 11110, 28280], [2, 7, 17, 1], 1010),
    "regnety-800mf(rounding='nearest')": ([64, 128, 320, 768], [1, 3, 8, 2], 16),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_regnets(name: str) -> None:
    widths, depths, group = PUBLISHED[name]
    config = RegNetConfig(hidden_sizes=widths, depths=depths, groups_width=group)
    with torch.device("meta"):
        theirs = RegNetModel(config)
    plan = plan_regnet(config.to_dict(), None, shapes_of(theirs.state_dict()))
    assert plan.design.architecture == name
    ours = fits(plan, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet-50", {}),
        ("resnet-152", {"depths": [3, 8, 36, 3]}),
        ("resnet-18", {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}),
    ],
)
def test_the_published_resnets(name: str, options: dict[str, Any]) -> None:
    config = ResNetConfig(**options)
    with torch.device("meta"):
        theirs = ResNetForImageClassification(config)
    plan = plan_resnet(config.to_dict(), None, shapes_of(theirs.state_dict()))
    assert plan.design.architecture == name
    fits(plan, theirs.state_dict())


@pytest.mark.parametrize(("size", "resize", "box"), [(224, "crop", (256, 256)), (384, "squash", None)])
def test_pixels_are_those_of_the_image_processor(
    size: int, resize: str, box: tuple[int, int] | None, tmp_path: Path
) -> None:
    RegNetModel(CONFIGS["regnet"]).save_pretrained(tmp_path)
    plan, _ = loaded(tmp_path)
    assert "no preprocessor_config.json" in plan.design.provenance["preprocess"]
    assert plan.design.preprocess.size == (224, 224)
    ConvNextImageProcessor(size={"shortest_edge": size}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    plan, _ = loaded(tmp_path)
    assert plan.design.provenance == {}
    preprocess = plan.design.preprocess
    assert (preprocess.size, preprocess.resize, preprocess.box) == ((size, size), resize, box)
    assert preprocess.mean == pytest.approx((0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("basic", {"hidden_act": "gelu"}),
        ("basic", {"downsample_in_first_stage": True}),
        ("bottleneck", {"downsample_in_bottleneck": True}),
        ("bottleneck", {"num_channels": 1}),
        ("regnet", {"layer_type": "x"}),
        ("regnet", {"downsample_in_first_stage": False}),
    ],
)
def test_other_networks_are_refused(kind: str, change: dict[str, Any], tmp_path: Path) -> None:
    config = CONFIGS[kind]
    of = ResNetModel if isinstance(config, ResNetConfig) else RegNetModel
    of(type(config).from_dict(config.to_dict() | change)).save_pretrained(tmp_path)
    key, value = next(iter(change.items()))
    with pytest.raises(MiradaError, match=f"{key}={value!r} in its config.json"):
        loaded(tmp_path)


def test_a_lost_tensor_is_named(tmp_path: Path) -> None:
    theirs = RegNetForImageClassification(CONFIGS["regnet"])
    tensors = theirs.state_dict()
    del tensors["regnet.encoder.stages.1.layers.0.layer.2.attention.2.bias"]
    theirs.save_pretrained(tmp_path, state_dict=tensors)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "regnet"
    with pytest.raises(
        MiradaError, match=r"missing regnet\.encoder\.stages\.1\.layers\.0\.layer\.2\.attention\.2\.bias"
    ):
        loaded(tmp_path)
