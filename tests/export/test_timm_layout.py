"""What is exported for timm is read by it with the same outputs, and by this package as it was."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from exported import BILINEAR, CLASSES, VIT, comes_back, fill, in_timm, made, same
from peers import import_torchvision

import_torchvision()
import timm  # noqa: E402

from mirada.checkpoints.timm import SIZES  # noqa: E402
from mirada.errors import MiradaError  # noqa: E402
from mirada.export.layouts import Exported, export  # noqa: E402
from mirada.export.timm import REGNETS, _architecture  # noqa: E402
from mirada.model import Model, Projection  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")


VITS = {
    "plain": f"vit-pico/8({VIT})",
    "registers, gains": f"vit-pico/8({VIT}, registers=3, layer_scale=0.1)",
    "registers without positions": f"vit-pico/8({VIT}, registers=3, prefix_positions=0)",
    "every token has a position": f"vit-pico/8({VIT}, registers=3, prefix_positions=4)",
    "DeiT III": f"vit-ti/16({VIT}, prefix_positions=0, layer_scale=1e-6)",
    "average": f"vit-pico/8({VIT}, pooling='average', activation='quickgelu')",
    "average, registers": f"vit-pico/8({VIT}, pooling='average', registers=2, qkv_bias=False)",
    "attention": f"vit-pico/8({VIT}, pooling='attention', activation='gelu_tanh', mlp_ratio=3.7)",
    "attention, registers": f"vit-pico/8({VIT}, pooling='attention', registers=2)",
    "CLIP": f"vit-pico/16({VIT}, pre_norm=True, epsilon=1e-5, activation='quickgelu')",
    "sincos": f"vit-pico/8({VIT}, positions='sincos')",
    "no positions": f"vit-pico/8({VIT}, positions='none', registers=1)",
    "swiglu": f"vit-pico/8({VIT}, activation='swiglu', mlp_ratio=2.5)",
    "rotary": f"vit-pico/8({VIT}, positions='rotary', epsilon=1e-5, registers=2)",
    "rotary, average": f"vit-pico/8({VIT}, positions='rotary', epsilon=1e-5, pooling='average', qkv_bias=False)",
    "rotary, swiglu": f"vit-s/16(positions='rotary', epsilon=1e-5, activation='swiglu', qkv_bias=False, {VIT})",
}


@torch.no_grad()
def check_timm(model: Model, folder: Path, side: int = 48) -> Exported:
    done = export(model, "timm", folder)
    peer, images = in_timm(folder), torch.randn(2, 3, side, side)
    same(model.encode_image(images), peer.forward_head(peer.forward_features(images), pre_logits=True))
    if model.head is not None:
        same(model.logits(images), peer(images))
        assert peer.pretrained_cfg["label_names"] == list(CLASSES)
    comes_back(model, folder, side)
    return done


@torch.no_grad()
def test_a_compiled_network_is_exported_as_it_was(tmp_path: Path) -> None:
    model, images = made(VITS["plain"]), torch.randn(2, 3, 48, 48)
    expected = model.encode_image(images)
    model.backbone = torch.compile(model.backbone, backend="eager")  # type: ignore[assignment]
    export(model, "timm", tmp_path)
    peer = in_timm(tmp_path)
    same(expected, peer.forward_head(peer.forward_features(images), pre_logits=True))


def test_every_architecture_that_is_named_is_one_of_timms() -> None:
    named = set()
    for size, patch, epsilon in product([*SIZES.values(), {"dim": 64, "depth": 4, "num_heads": 2}], (8, 14, 16, 32),
                                        (1e-6, 1e-5)):  # fmt: skip
        for activation, rotary in (("gelu", False), ("quickgelu", False), ("gelu", True), ("swiglu", True)):
            options = {"patch_size": patch, "epsilon": 1e-5 if rotary else epsilon, "activation": activation,
                       "pre_norm": False, "pooling": "class", "hidden": 256, **size}  # fmt: skip
            named.add(_architecture(options, rotary, activation == "swiglu"))
    named |= {f"regnety_{name}" for name in REGNETS}
    assert len(named) > 35
    assert not [name for name in sorted(named) if not timm.is_model(name)]


@pytest.mark.parametrize("name", VITS)
def test_vit_in_timm(name: str, tmp_path: Path) -> None:
    check_timm(made(VITS[name]), tmp_path / "out")


CONVOLUTIONAL = {
    "resnet-18(widths=(16, 24, 32, 48))": "resnet18",
    "resnet-18(depths=(1, 2, 1, 1), widths=(16, 32, 48, 64))": "resnet18",
    "resnet-50(depths=(1, 1, 1, 2), widths=(64, 96, 128, 256))": "resnet50",
    "regnety-400mf(depth=15, w_a=26.5, stem_width=16)": "regnety_008_tv",
    "regnety-400mf(plan=((24, 1, 8), (56, 1, 8), (152, 4, 8), (368, 7, 8)))": "regnety_002",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 2, 2, 1), variant='0_rw', image_size=96)": "coatnet_0_rw_224",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), variant='rmlp_1_rw2', image_size=96)":
        "coatnet_rmlp_1_rw2_224",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("architecture", CONVOLUTIONAL)
def test_convolutional_network_in_timm(architecture: str, tmp_path: Path) -> None:
    pixels = replace(BILINEAR, size=(96, 96))
    done = check_timm(made(architecture, pixels=pixels), tmp_path / "out", 96)
    assert done.architecture == CONVOLUTIONAL[architecture]


def test_a_head_on_a_projection_in_timm(tmp_path: Path) -> None:
    architecture = "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), variant='timm', image_size=96)"
    pixels = replace(BILINEAR, size=(96, 96))
    model = made(architecture, pixels=pixels, projection=Projection(80, True, True), head_input="projected")
    check_timm(model, tmp_path / "out", 96)


def test_biases_of_keys_that_timm_does_not_have(tmp_path: Path) -> None:
    model = made(VITS["rotary"])
    fill(model)
    with pytest.raises(MiradaError, match="biases of keys, which this model has, have no place"):
        export(model, "timm", tmp_path / "out")
