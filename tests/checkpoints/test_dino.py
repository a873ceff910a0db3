"""DINO's, DINOv2's, DINOv3's and MAE's original files. timm reads the same layouts: it is the oracle, by its filters.

The files are made by giving a model of timm's the names that the original code has.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import eva, vision_transformer
from torch import Tensor, nn
from torch.nn import functional as F

import mirada
from mirada.checkpoints import dino, mae, table
from mirada.errors import MiradaError
from mirada.model import Model

pytestmark = pytest.mark.filterwarnings("ignore")
Randomise = Callable[..., nn.Module]
Tensors = dict[str, Tensor]

V3_NAMES = (("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"),
            ("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"))  # fmt: skip


def original_v1(tensors: Tensors) -> Tensors:
    return tensors


def original_v2(tensors: Tensors) -> Tensors:
    """With a mask token; gated layers are called w12 and w3; with registers the class token has a position too."""
    gated = "blocks.0.mlp.fc1.weight" in tensors and (
        tensors["blocks.0.mlp.fc1.weight"].shape[0] == 2 * tensors["blocks.0.mlp.fc2.weight"].shape[1]
    )
    made = {"mask_token": torch.randn(1, tensors["cls_token"].shape[-1])}
    for name, tensor in tensors.items():
        if gated:
            name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        made[name.replace("reg_token", "register_tokens")] = tensor
    if "reg_token" in tensors:
        position = torch.randn_like(tensors["cls_token"])
        made["cls_token"] = tensors["cls_token"] - position
        made["pos_embed"] = torch.cat([position, tensors["pos_embed"]], 1)
    return made


def original_v3(tensors: Tensors) -> Tensors:
    """With a mask token, the periods of rotary positions, and a joint bias of which the keys' third is masked."""
    dim = tensors["cls_token"].shape[-1]
    made = {"mask_token": torch.randn(1, dim), "rope_embed.periods": torch.randn(16)}
    gated = "blocks.0.mlp.fc1_g.weight" in tensors
    for name, tensor in tensors.items():
        for theirs, original in V3_NAMES:
            name = name.replace(theirs, original)
        if gated:
            name = name.replace("mlp.fc2", "mlp.w3")
        if name.endswith("q_bias"):
            start = name.removesuffix("q_bias")
            value = tensors[name.replace("q_bias", "v_bias")]
            made[f"{start}qkv.bias"] = torch.cat([tensor, torch.full_like(tensor, torch.nan), value])
            made[f"{start}qkv.bias_mask"] = torch.cat([torch.ones(dim), torch.zeros(dim), torch.ones(dim)])
        elif not name.endswith("v_bias"):
            made[name] = tensor
    return made


CASES = {  # our name -> timm's, how its names become the original's, what timm makes of those, options
    "dino_vits16": ("vit_small_patch16_224", original_v1, None, {}),
    "dino_vitb8": ("vit_base_patch8_224", original_v1, None, {"img_size": 64}),
    "dinov2_vits14": ("vit_small_patch14_dinov2", original_v2, vision_transformer._convert_dinov2, {"img_size": 98}),
    "dinov2_vits14_reg": (
        "vit_small_patch14_reg4_dinov2", original_v2, vision_transformer._convert_dinov2, {"img_size": 98}),
    "dinov3_vits16": ("vit_small_patch16_dinov3_qkvb", original_v3, eva.checkpoint_filter_fn, {"global_pool": "token"}),
    "dinov3_vits16plus": (
        "vit_small_plus_patch16_dinov3_qkvb", original_v3, eva.checkpoint_filter_fn, {"global_pool": "token"}),
}  # fmt: skip


def pair(name: str, randomise: Randomise, file: Path) -> tuple[nn.Module, Tensors]:
    """timm's model, filled from an original file by timm itself, and that file's tensors."""
    theirs, rename, convert, options = CASES[name]
    peer = randomise(timm.create_model(theirs, num_classes=0, **options))
    tensors = {key: tensor.contiguous().clone() for key, tensor in rename(dict(peer.state_dict())).items()}
    save_file(tensors, file)
    if convert is not None:
        peer.load_state_dict(convert(dict(tensors), peer), strict=True)
    return peer, tensors


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_parity(name: str, randomise: Randomise, parity: Any, tmp_path: Path) -> None:
    peer, _ = pair(name, randomise, tmp_path / "model.safetensors")
    ours = mirada.load(f"dino:{name}", weights=tmp_path / "model.safetensors")
    side = CASES[name][3].get("img_size", peer.default_cfg["input_size"][-1])  # type: ignore[index]
    images = torch.randn(1, 3, side, side)
    tokens = peer.forward_features(images)  # type: ignore[operator]
    parity("original files", name, {
        "encode_image": (ours.encode_image(images), peer(images)),
        "patches": (ours.backbone(images).patches.flatten(1, 2), tokens[:, peer.num_prefix_tokens :]),  # type: ignore[misc]
    })  # fmt: skip


def test_v1_and_v2_take_positions_to_another_size_by_a_factor(randomise: Randomise, tmp_path: Path) -> None:
    """As dino/vision_transformer.py, interpolate_pos_encoding: a tenth of a patch is added before dividing."""
    pair("dinov2_vits14", randomise, tmp_path / "model.safetensors")
    ours = mirada.load("dino:dinov2_vits14", weights=tmp_path / "model.safetensors")
    square = ours.backbone.position.mT.unflatten(2, (7, 7))  # type: ignore[union-attr]
    expected = F.interpolate(square, scale_factor=((5 + 0.1) / 7, (9 + 0.1) / 7), mode="bicubic").flatten(2).mT
    assert torch.equal(ours.backbone.position_table((5, 9)), expected)  # type: ignore[operator]
    assert expected.shape == (1, 45, 384)


def test_a_training_checkpoint_gives_its_teacher(randomise: Randomise, tmp_path: Path) -> None:
    peer = randomise(timm.create_model("vit_small_patch16_224", num_classes=0))
    teacher = {f"backbone.{key}": tensor for key, tensor in peer.state_dict().items()}
    teacher |= {"head.mlp.0.weight": torch.zeros(2, 2), "head.last_layer.weight_g": torch.zeros(2, 1)}
    student = {f"module.{key}": torch.zeros_like(tensor) for key, tensor in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 3}, tmp_path / "checkpoint.pth")
    ours = mirada.load("dino:dino_vits16", weights=tmp_path / "checkpoint.pth")
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(images), peer(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in dino.NAMES if "reg" not in name])
def test_every_tensor_of_the_real_size_has_its_place(name: str) -> None:
    size = {
        "s": "small",
        "b": "base",
        "l": "large",
        "g": "giant",
        "splus": "small_plus",
        "hplus": "huge_plus",
        "7b": "7b",
    }
    match = re.fullmatch(r"(\w+?)_vit(\w*?[a-z])(\d+)(plus)?(/sat493m)?", name)
    assert match is not None
    kind, letters, patch = match[1], match[2] + (match[4] or ""), match[3]
    theirs = {"dino": f"vit_{size[letters]}_patch{patch}_224", "dinov2": f"vit_{size[letters]}_patch14_dinov2",
              "dinov3": f"vit_{size[letters]}_patch16_dinov3"}[kind]  # fmt: skip
    rename = {"dino": original_v1, "dinov2": original_v2, "dinov3": original_v3}[kind]
    with torch.device("meta"):
        peer = timm.create_model(theirs, num_classes=0)
        shapes = {key: tuple(tensor.shape) for key, tensor in rename(dict(peer.state_dict())).items()}
        if match[5]:
            shapes |= dict.fromkeys(("local_cls_norm.weight", "local_cls_norm.bias"), (peer.embed_dim,))
        made = dino.plan(name, None, shapes)
        wanted = {key: tensor.shape for key, tensor in Model.from_design(made.design).state_dict().items()}
        found = table.read(made.table, shapes, lambda key: torch.empty(shapes[key]), wanted, name)
    assert found.keys() == wanted.keys()


@pytest.mark.parametrize("name", ["dino_vits16", "dinov2_vits14_reg", "dinov3_vits16", "dinov3_vits16plus"])
def test_what_is_written_back_is_what_was_read(name: str, randomise: Randomise, tmp_path: Path) -> None:
    _, tensors = pair(name, randomise, tmp_path / "model.safetensors")
    ours = mirada.load(f"dino:{name}", weights=tmp_path / "model.safetensors")
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    written = table.write(dino.plan(name, None, shapes).table, ours.state_dict(), name)
    assert tensors.keys() - written.keys() <= {"mask_token", "rope_embed.periods"}
    for key, tensor in written.items():
        assert torch.equal(tensor, tensors[key].nan_to_num(0.0)), key


@torch.no_grad()
def test_mae_parity(randomise: Randomise, parity: Any, tmp_path: Path) -> None:
    peer = randomise(timm.create_model("vit_base_patch16_224.mae", num_classes=0))
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 197, 8),
               "decoder_embed.weight": torch.zeros(8, 768), "decoder_blocks.0.norm1.weight": torch.zeros(8),
               "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8), "decoder_norm.bias": torch.zeros(8),
               "decoder_pred.bias": torch.zeros(768)}  # fmt: skip
    torch.save({"model": dict(peer.state_dict()) | decoder}, tmp_path / "mae.pth")
    ours = mirada.load("mae:mae_vit_base_patch16", weights=tmp_path / "mae.pth")
    images = torch.randn(1, 3, 224, 224)
    tokens = peer.forward_features(images)  # type: ignore[operator]
    parity("original files", "mae_vit_base_patch16", {
        "encode_image": (ours.encode_image(images), peer(images)),
        "patches": (ours.backbone(images).patches.flatten(1, 2), tokens[:, 1:]),
    })  # fmt: skip


def test_names_that_are_not() -> None:
    for ref, said in (
        ("dino:dinov2_vits_14", "did you mean dino:dinov2_vits14"), ("dino:dino_resnet50", "not a vision transformer"),
        ("mae:vit_base", "did you mean mae:mae_vit_base_patch16"),
    ):  # fmt: skip
        with pytest.raises(MiradaError, match=said):
            mirada.load(ref)
    assert mae.repository("mae_vit_base_patch16") == "facebook/vit-mae-base"
    assert {name: dino.repository(name) for name in dino.NAMES if name.startswith("dinov3")} == {
        name: f"facebook/{name.partition('/')[0].replace('_', '-')}-pretrain-{name.partition('/')[2] or 'lvd1689m'}"
        for name in ("dinov3_vits16", "dinov3_vits16plus", "dinov3_vitb16", "dinov3_vitl16", "dinov3_vith16plus",
                     "dinov3_vit7b16", "dinov3_vitl16/sat493m", "dinov3_vit7b16/sat493m")
    }  # fmt: skip


def test_weights_for_satellite_images_have_their_own_colours() -> None:
    peer = timm.create_model("vit_large_patch16_dinov3", depth=1)
    tensors = original_v3(dict(peer.state_dict()))
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()} | {"local_cls_norm.weight": (1024,)}
    with pytest.raises(MiradaError, match="name them dino:dinov3_vitl16/sat493m"):
        dino.plan("dinov3_vitl16", None, shapes)
    assert dino.plan("dinov3_vitl16/sat493m", None, shapes).design.preprocess.mean == (0.430, 0.411, 0.296)
    del shapes["local_cls_norm.weight"]
    with pytest.raises(MiradaError, match="for web images, which have colours of their own"):
        dino.plan("dinov3_vitl16/sat493m", None, shapes)
    assert dino.repository("dinov3_vithplus16") == dino.repository("dinov3_vith16plus")  # as it was once called here
