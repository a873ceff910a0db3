"""What is exported for transformers is read by it with the same outputs, and by this package as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exported import CLASSES, VIT, comes_back, config_of, in_transformers, made, same
from peers import import_torchvision

import_torchvision()

from mirada.export.layouts import Exported, export  # noqa: E402
from mirada.model import Model, Projection  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")


@torch.no_grad()
def check_transformers(model: Model, folder: Path, side: int = 48) -> Exported:
    done = export(model, "hf", folder)
    images = torch.randn(2, 3, side, side)
    if model.head is not None:
        peer = in_transformers(folder, "AutoModelForImageClassification")
        same(model.logits(images), peer(images).logits)
        assert list(peer.config.id2label.values()) == list(CLASSES)
        inside = getattr(peer, "vision_model", None) or peer.base_model
    else:
        kind = "AutoModel" if "WithProjection" not in done.architecture else done.architecture
        peer = inside = in_transformers(folder, kind)
    assert type(peer).__name__ == done.architecture == config_of(folder)["architectures"][0]
    said = inside(images)
    feature = getattr(said, "image_embeds", None)
    feature = getattr(said, "pooler_output", None) if feature is None else feature
    if feature is None:
        average = config_of(folder).get("vision_use_head", True) is False or "Siglip" in done.architecture
        feature = said.last_hidden_state.mean(1) if average else said.last_hidden_state[:, 0]
    same(model.encode_image(images), feature.flatten(1))
    comes_back(model, folder, side)
    return done


TRANSFORMERS = {
    f"vit-pico/8({VIT})": ("ViTForImageClassification", "Dinov2Model"),
    f"vit-pico/8({VIT}, qkv_bias=False, epsilon=1e-12, activation='quickgelu', prefix_positions=0)":
        ("ViTForImageClassification", "Dinov2Model"),
    f"vit-pico/8({VIT}, positions='sincos')": ("ViTForImageClassification", "Dinov2Model"),
    f"vit-pico/8({VIT}, layer_scale=0.1)": ("Dinov2ForImageClassification", "Dinov2Model"),
    f"vit-pico/8({VIT}, activation='swiglu')": ("Dinov2ForImageClassification", "Dinov2Model"),
    f"vit-pico/8({VIT}, registers=3, prefix_positions=2)":
        ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersModel"),
    f"vit-pico/8({VIT}, registers=1, prefix_positions=2)": ("DeiTForImageClassification", None),
    f"vit-pico/8({VIT}, pooling='average', activation='gelu_tanh')":
        ("SiglipForImageClassification", "SiglipVisionModel"),
    f"vit-pico/8({VIT}, pooling='attention', mlp_ratio=3.7)": (None, "SiglipVisionModel"),
    f"vit-pico/8({VIT}, pre_norm=True, epsilon=1e-5)": (None, "CLIPVisionModel"),
    f"vit-pico/8({VIT}, positions='rotary', registers=2)": (None, "DINOv3ViTModel"),
    f"vit-pico/8({VIT}, positions='rotary', activation='swiglu', qkv_bias=False, layer_scale=0.1)":
        (None, "DINOv3ViTModel"),
    "resnet-18(depths=(1, 2, 1), widths=(16, 32, 48), stem_width=24)": ("ResNetForImageClassification", "ResNetModel"),
    "resnet-50(depths=(1, 1, 1, 2), widths=(64, 96, 128, 256))": ("ResNetForImageClassification", None),
    "regnety-400mf(plan=((24, 1, 8), (56, 1, 8), (152, 2, 8)))": ("RegNetForImageClassification", "RegNetModel"),
}  # fmt: skip


@pytest.mark.parametrize(("architecture", "head", "expected"), [
    (architecture, head, names[0 if head else 1])
    for architecture, names in TRANSFORMERS.items() for head in (True, False) if names[0 if head else 1]
])  # fmt: skip
def test_network_in_transformers(architecture: str, head: bool, expected: str, tmp_path: Path) -> None:
    done = check_transformers(made(architecture, head), tmp_path / "out")
    assert done.architecture == expected


@pytest.mark.parametrize(("architecture", "options", "expected"), [
    (f"vit-pico/8({VIT}, layer_scale=0.1)", {"head_input": "class and average"}, "Dinov2ForImageClassification"),
    (f"vit-pico/8({VIT}, registers=1, prefix_positions=2)", {"head_input": "class and distillation"},
     "DeiTForImageClassificationWithTeacher"),
    (f"vit-pico/8({VIT})", {"head": False, "projection": Projection(40, True, True)}, "ViTModel"),
    (f"vit-pico/8({VIT}, pre_norm=True, epsilon=1e-5)", {"head": False, "projection": Projection(40)},
     "CLIPVisionModelWithProjection"),
])  # fmt: skip
def test_heads_and_projections_in_transformers(
    architecture: str, options: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    assert check_transformers(made(architecture, **options), tmp_path / "out").architecture == expected
