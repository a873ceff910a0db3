"""transformers' vision transformers, as `save_pretrained` writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import mirada
from mirada.checkpoints import hf, table
from mirada.checkpoints.files import LocalFiles
from mirada.checkpoints.weights import find_weights
from mirada.errors import MiradaError
from mirada.model import Model

pytestmark = pytest.mark.filterwarnings("ignore")
Randomise = Callable[..., nn.Module]

SMALL = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 768}
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {  # row of the table -> model, config, its options
    "ViTModel": ("ViTModel", "ViTConfig", SMALL),
    "ViTForImageClassification": ("ViTForImageClassification", "ViTConfig", SMALL | {"num_labels": 5}),
    "ViTModel without bias (eps 1e-6)": (
        "ViTModel", "ViTConfig", SMALL | {"qkv_bias": False, "layer_norm_eps": 1e-6, "hidden_act": "quick_gelu"}),
    "DeiTModel": ("DeiTModel", "DeiTConfig", SMALL),
    "DeiTForImageClassification": ("DeiTForImageClassification", "DeiTConfig", SMALL | {"num_labels": 4}),
    "DeiTForImageClassificationWithTeacher": (
        "DeiTForImageClassificationWithTeacher", "DeiTConfig", SMALL | {"num_labels": 4}),
    "ViTMAEModel": ("ViTMAEModel", "ViTMAEConfig", SMALL | {"mask_ratio": 0.0}),
    "ViTMAEForPreTraining": ("ViTMAEForPreTraining", "ViTMAEConfig", SMALL | {
        "mask_ratio": 0.0, "decoder_num_hidden_layers": 1, "decoder_hidden_size": 32,
        "decoder_num_attention_heads": 2, "decoder_intermediate_size": 64}),
    "Dinov2Model": ("Dinov2Model", "Dinov2Config", SMALL | {"image_size": 98}),
    "Dinov2Model (SwiGLU)": ("Dinov2Model", "Dinov2Config", SMALL | {"image_size": 98, "use_swiglu_ffn": True}),
    "Dinov2ForImageClassification": (
        "Dinov2ForImageClassification", "Dinov2Config", SMALL | {"image_size": 98, "num_labels": 3}),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig",
                                 SMALL | {"image_size": 98, "patch_size": 14}),
    "Dinov2WithRegistersForImageClassification": (
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig",
        SMALL | {"image_size": 98, "patch_size": 14, "num_labels": 3}),
    "DINOv3ViTModel": ("DINOv3ViTModel", "DINOv3ViTConfig", SMALL | {"num_register_tokens": 4}),
    "DINOv3ViTModel (gated)": ("DINOv3ViTModel", "DINOv3ViTConfig", SMALL | {
        "num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu", "query_bias": False,
        "value_bias": False}),
}  # fmt: skip


def made(row: str, randomise: Randomise, folder: Path) -> nn.Module:
    model, config, options = ROWS[row]
    peer = randomise(getattr(transformers, model)(getattr(transformers, config)(**options)))
    if "MAE" in row:
        peer.apply(
            lambda module: setattr(module, "random_masking", in_order) if hasattr(module, "random_masking") else 0
        )
    peer.save_pretrained(folder)  # type: ignore[operator]
    return peer


def in_order(sequence: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """What MAE's masking gives for a ratio of 0, without the shuffling of patches."""
    del noise
    places = torch.arange(sequence.shape[1]).expand(len(sequence), -1)
    return sequence, torch.zeros_like(places, dtype=sequence.dtype), places


def base(peer: nn.Module) -> nn.Module:
    whole = type(peer).__name__.endswith("Model")
    return peer if whole else getattr(peer, peer.base_model_prefix)  # type: ignore[arg-type]


@torch.no_grad()
def outputs(ours: Model, peer: nn.Module, images: Tensor, **options: Any) -> dict[str, tuple[Tensor, Tensor]]:
    said = base(peer)(images, **options)
    tokens = said.last_hidden_state
    pooled = getattr(said, "pooler_output", None)
    features = ours.backbone(images)
    found = {
        "encode_image": (ours.encode_image(images), tokens[:, 0] if pooled is None else pooled),
        "patches": (features.patches.flatten(1, 2), tokens[:, features.prefix.shape[1] :]),
    }
    if ours.head is not None:
        found["logits"] = (ours.logits(images), peer(images, **options).logits)
    return found


@pytest.mark.parametrize("row", ROWS)
def test_parity(row: str, randomise: Randomise, parity: Any, tmp_path: Path) -> None:
    peer = made(row, randomise, tmp_path)
    ours = mirada.load(tmp_path)
    assert (ours.head is None) == ("Classification" not in row)
    side = ROWS[row][2].get("image_size", 224)
    parity("transformers", row, outputs(ours, peer, torch.randn(2, 3, side, side)))


@pytest.mark.parametrize(("row", "size"), [
    ("ViTModel", (96, 160)), ("DeiTModel", (96, 160)), ("ViTMAEModel", (96, 160)), ("Dinov2Model", (56, 84)),
    ("Dinov2WithRegistersModel", (56, 84)), ("DINOv3ViTModel", (96, 160)),
])  # fmt: skip
def test_positions_for_another_size_are_transformers(
    row: str, size: tuple[int, int], randomise: Randomise, parity: Any, tmp_path: Path
) -> None:
    peer = made(row, randomise, tmp_path)
    options = {} if "ino" in row.lower() else {"interpolate_pos_encoding": True}
    found = outputs(mirada.load(tmp_path), peer, torch.randn(1, 3, *size), **options)
    parity("transformers", f"{row} at {size[0]}x{size[1]}", found)


@pytest.mark.parametrize("row", [row for row in ROWS if "MAE" not in row])
def test_what_is_written_back_is_what_was_read(row: str, randomise: Randomise, tmp_path: Path) -> None:
    made(row, randomise, tmp_path)
    files = LocalFiles(tmp_path)
    weights = find_weights(files)
    written = table.write(hf.plan("x", files, weights.shapes).table, mirada.load(tmp_path).state_dict(), row)
    missing = {name for name in weights.shapes if name not in written}
    assert all(name.endswith("mask_token") for name in missing)
    assert written.keys() <= weights.shapes.keys()
    for name, tensor in written.items():
        if "Teacher" in row and name.endswith("classifier.bias"):
            continue  # the two are added up, and told apart no more
        assert torch.equal(tensor, weights.get(name)), name


def test_sizes_may_be_pairs(randomise: Randomise, tmp_path: Path) -> None:
    made("ViTModel", randomise, tmp_path)
    images = torch.randn(1, 3, 32, 32)
    expected = mirada.load(tmp_path).encode_image(images)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("image_size", "patch_size"):
        config[name] = [config[name], config[name]]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(mirada.load(tmp_path).encode_image(images), expected)


def test_class_names_are_the_configs(randomise: Randomise, tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SMALL, id2label={0: "ant", 1: "bee", 2: "cow"})
    randomise(transformers.ViTForImageClassification(config)).save_pretrained(tmp_path)  # type: ignore[operator]
    assert mirada.load(tmp_path).classes == ["ant", "bee", "cow"]


def test_pixels_are_those_of_the_image_processor(randomise: Randomise, tmp_path: Path) -> None:
    made("ViTModel", randomise, tmp_path)
    assert "assumed" in mirada.load(tmp_path).provenance["preprocess"]
    transformers.ViTImageProcessor(size={"height": 96, "width": 96}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(
        tmp_path
    )
    ours = mirada.load(tmp_path)
    assert (ours.preprocess.size, ours.preprocess.mean) == ((96, 96), (0.1, 0.2, 0.3))
    assert "preprocess" not in ours.provenance


@pytest.mark.parametrize(("change", "said"), [
    ({"model_type": "swin"}, "of the type 'swin', which Mirada does not load"),
    ({"hidden_act": "relu"}, "activation 'relu'"), ({"num_channels": 4}, "4 channels"),
    ({"num_attention_heads": 5}, "does not split into 5 heads"),
    ({"num_hidden_layers": 1}, "config.json says 1 layers, and the weights have 2"),
    ({"image_size": [32, 48]}, "image_size is .32, 48.: Mirada knows squares only"),
])  # fmt: skip
def test_other_networks_are_refused(change: dict[str, Any], said: str, randomise: Randomise, tmp_path: Path) -> None:
    made("ViTModel", randomise, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(MiradaError, match=said):
        mirada.load(tmp_path)
