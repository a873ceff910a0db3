"""What is exported is read by its library with the same outputs and pixels, and by this one as it was."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peers import import_torchvision
from PIL import Image
from torch import Tensor, nn
from vocabularies import byte_fallback_pairs, unigrams

import_torchvision()
import timm  # noqa: E402
import transformers  # noqa: E402
from timm.data import create_transform, resolve_data_config  # noqa: E402

import mirada  # noqa: E402
from mirada.backbones import build  # noqa: E402
from mirada.checkpoints.timm import SIZES  # noqa: E402
from mirada.errors import MiradaError  # noqa: E402
from mirada.export.layouts import Exported, export  # noqa: E402
from mirada.export.timm import REGNETS, _architecture  # noqa: E402
from mirada.model import Design, Model, Projection  # noqa: E402
from mirada.preprocess import Preprocess  # noqa: E402
from mirada.text import TextDesign  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")

TOLERANCE = 2e-5  # of the largest number in the model's output
CLASSES = ("ant", "bee", "cow")
BILINEAR = Preprocess((48, 48), "squash", None, "bilinear")
VIT = "depth=2, image_size=48"


@torch.no_grad()
def fill(module: nn.Module) -> nn.Module:
    """Random numbers everywhere, so that nothing is hidden by zeros and ones."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape)
        if "running_var" in name:
            tensor.copy_(1 + 0.2 * noise.abs())
        elif tensor.ndim >= 2:
            tensor.copy_(noise * (0.3 if tensor.ndim == 3 else 0.7 / tensor[0].numel() ** 0.5))
        elif name.endswith("logit_scale"):
            tensor.fill_(2.3)
        else:
            tensor.copy_(0.2 * noise + (1 if name.endswith(("weight", "gain")) else 0))
    return module.eval()


def made(architecture: str, head: bool = True, pixels: Preprocess = BILINEAR, **options: Any) -> Model:
    design = Design(architecture, pixels, CLASSES if head else None, **options)
    model = Model.from_design(design)
    fill(model)
    if "positions='rotary'" in architecture and "qkv_bias=False" not in architecture:
        for name, tensor in model.named_parameters():
            if name.endswith("qkv.bias"):
                tensor.detach()[len(tensor) // 3 : 2 * len(tensor) // 3] = 0  # of keys, for timm, which has none
    return model


def same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 1e-3 * theirs.abs().max() > 0
    assert (ours.double() - theirs.double()).abs().max() < TOLERANCE * ours.abs().max()


def in_timm(folder: Path) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def in_transformers(folder: Path, kind: str = "AutoModel") -> Any:
    """The model, once transformers has said that it found a place for every tensor, and a tensor for every place."""
    model, said = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
    return model.eval()


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def comes_back(model: Model, folder: Path, side: int = 48) -> Model:
    again = mirada.load(folder)
    images = torch.randn(2, 3, side, side)
    same(model.encode_image(images), again.encode_image(images))
    if model.head is not None:
        same(model.logits(images), again.logits(images))
        assert again.classes == model.classes
    return again


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


# --- transformers --------------------------------------------------------------------------------------------------


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


# --- two towers ----------------------------------------------------------------------------------------------------

TEXTS = [
    "A photo of a dog.",
    "un niño con un perro, ¡qué bien!",
    "🐶",
    "",
    "it's under_scored & more",
    "many words " * 60,
]
SMALL = {"width": 48, "depth": 2, "num_heads": 4, "hidden": 96}
TOWER = "depth=2, image_size=56, mlp_ratio=2"


@torch.no_grad()
def check_towers(model: Model, folder: Path, padding: Any) -> Any:
    export(model, "hf", folder)
    peer: Any = in_transformers(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    images = torch.randn(2, 3, 56, 56)
    inputs = tokenizer(TEXTS, truncation=True, padding=padding, return_tensors="pt")
    same(model.encode_image(images), peer.get_image_features(images).pooler_output)
    same(model.encode_text(TEXTS), peer.get_text_features(inputs.input_ids).pooler_output)
    scores = peer(input_ids=inputs.input_ids, pixel_values=images).logits_per_image
    mine = model.encode_image(images, normalize=True) @ model.encode_text(TEXTS, normalize=True).T
    torch.testing.assert_close(model.logit_scale * mine + model.logit_bias, scores, rtol=1e-4, atol=1e-4)
    again = mirada.load(folder)
    same(model.encode_text(TEXTS), again.encode_text(TEXTS))
    same(model.encode_image(images), again.encode_image(images))
    return peer


@pytest.mark.parametrize("pooling", ["largest", "end"])
def test_clip_in_transformers(pooling: Any, tmp_path: Path) -> None:
    text = TextDesign(**SMALL, dim=24, pooling=pooling, end=49407 if pooling == "end" else None)
    pixels = Preprocess((56, 56), "crop", (56, 56), "bicubic", "torch", halves="down")
    architecture = f"vit-pico/14({TOWER}, pre_norm=True, epsilon=1e-5, activation='quickgelu')"
    model = made(architecture, False, pixels, projection=Projection(24), text=text)
    peer = check_towers(model, tmp_path / "out", True)
    assert type(peer) is transformers.CLIPModel


@pytest.mark.parametrize("generation", [1, 2])
def test_siglip_in_transformers(generation: int, tmp_path: Path) -> None:
    """From transformers to Mirada and back, with the vocabularies of both generations."""
    if generation == 1:
        tokenizer = transformers.SiglipTokenizer(str(unigrams(TEXTS * 20, tmp_path, 90)))
    else:
        vocabulary, merges = byte_fallback_pairs(TEXTS, 400)
        tokenizer = transformers.Siglip2Tokenizer(
            vocab=vocabulary, merges=merges, padding_side="right", add_bos_token=False, add_eos_token=True
        )
    small = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = small | {"vocab_size": len(tokenizer), "projection_size": 32, "bos_token_id": None, "eos_token_id": 1}
    vision = small | {"hidden_size": 32, "image_size": 56, "patch_size": 14}
    config = transformers.SiglipConfig(vision_config=vision, text_config=text)
    theirs = fill(transformers.SiglipModel(config))
    for each in (theirs, tokenizer, transformers.SiglipImageProcessor(size={"height": 56, "width": 56})):
        each.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    model = mirada.load(tmp_path / "theirs")
    peer = check_towers(model, tmp_path / "out", "max_length")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(peer.state_dict()[name], tensor), name
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    expected = tokenizer(TEXTS, padding="max_length", max_length=64, truncation=True).input_ids
    assert again(TEXTS, padding="max_length", truncation=True).input_ids == expected


# --- what other libraries made, and what was trained here ----------------------------------------------------------

FROM_TIMM: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": {"embed_dim": 96, "num_heads": 3},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56},
    "vit_giant_patch14_dinov2": {"img_size": 56, "embed_dim": 96, "num_heads": 3},
    "vit_small_patch16_dinov3": {"img_size": 64},
    "deit3_small_patch16_224": {"img_size": 64},
    "vit_base_patch16_siglip_224": {"img_size": 64, "embed_dim": 96, "num_heads": 3},
}


@pytest.mark.parametrize("name", FROM_TIMM)
def test_from_timm_and_back_tensor_by_tensor(name: str, tmp_path: Path) -> None:
    arguments = {"depth": 1, **FROM_TIMM[name]}
    theirs = fill(timm.create_model(name, **arguments))
    timm.models.save_for_hf(theirs, tmp_path / "theirs", safe_serialization=True, model_args=arguments)
    model = mirada.load(tmp_path / "theirs")
    done = export(model, "timm", tmp_path / "out")
    assert not done.notes
    peer = in_timm(tmp_path / "out")
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(peer.state_dict()[key], tensor), key
    for key in ("interpolation", "crop_pct", "mean", "std"):
        assert peer.pretrained_cfg[key] in (theirs.pretrained_cfg[key], [*np.atleast_1d(theirs.pretrained_cfg[key])])
    again = mirada.load(tmp_path / "out")
    assert (again.architecture, again.preprocess) == (model.architecture, model.preprocess)


@torch.no_grad()
def test_a_run_of_ours(trained_run: Path, tmp_path: Path) -> None:
    model = mirada.load(trained_run)
    export(model, "timm", tmp_path / "timm")
    export(model, "hf", tmp_path / "hf")
    picture = photograph(131, 90)
    images = model.prepare(picture)
    peer = in_timm(tmp_path / "timm")
    ready = create_transform(**resolve_data_config(model=peer))(picture)[None]
    same(model.logits(images), peer(images))
    grey_levels(images, ready, model.preprocess, 1.001)
    assert peer.pretrained_cfg["label_names"] == model.classes
    theirs = in_transformers(tmp_path / "hf", "AutoModelForImageClassification")
    same(model.logits(images), theirs(images).logits)
    assert list(theirs.config.id2label.values()) == model.classes
    for folder in ("timm", "hf"):
        again = mirada.load(tmp_path / folder)
        assert again.classes == model.classes
        same(model.logits(images), again.logits(images))


# --- pixels --------------------------------------------------------------------------------------------------------


def photograph(width: int, height: int) -> Image.Image:
    """Waves, edges and noise."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([127 + 90 * np.sin(x / 5 + k) * np.cos(y / 7 - k) for k in range(3)], -1)
    waves[(x // 16 + y // 16) % 5 == 0] = 255
    return Image.fromarray((waves + generator.normal(0, 9, waves.shape)).clip(0, 255).astype("uint8"))


def grey_levels(ours: Tensor, theirs: Tensor, pixels: Preprocess, most: float) -> None:
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs() * torch.tensor(pixels.std)[:, None, None] * 255).max() < most


PIXELS: Mapping[str, Preprocess] = {
    "bilinear": BILINEAR,
    "bicubic of Pillow": Preprocess((48, 48), "crop", (54, 54), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    "bicubic of torch": Preprocess((48, 48), "crop", (55, 55), "bicubic", "torch", halves="down"),
    "crop of a square": Preprocess((48, 48), "squash", (56, 56), "bilinear"),
    "odd box": Preprocess((48, 48), "crop", (49, 49), "bilinear"),
    "padded": Preprocess((48, 48), "pad"),
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels(name: str, tmp_path: Path) -> None:
    pixels, pictures = PIXELS[name], [photograph(*size) for size in ((131, 90), (90, 132), (64, 64), (30, 41))]
    model = made(f"vit-pico/16({VIT})", pixels=pixels)
    done = export(model, "timm", tmp_path / "timm")
    transform = create_transform(**resolve_data_config(pretrained_cfg=config_of(tmp_path / "timm")["pretrained_cfg"]))
    parted = [note for note in done.notes if "pixel" in note]
    assert bool(parted) == ("torch" in name)
    for picture in pictures if not parted else []:
        grey_levels(pixels(picture), transform(picture), pixels, 1.001)
    if name == "padded":
        with pytest.raises(MiradaError, match=r"no image processor that does resize='pad'.*export it as timm"):
            export(model, "hf", tmp_path / "hf")
        return
    done = export(model, "hf", tmp_path / "hf")
    backend = "pil" if "Pillow" in name else None
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf", backend=backend)
    assert any("backend='pil'" in note for note in done.notes) == (backend == "pil")
    aside = any("a pixel aside" in note for note in done.notes)
    assert aside == (pixels.halves == "even" and pixels.resize == "crop")
    for picture in pictures:
        theirs = processor(picture, return_tensors="pt").pixel_values[0]
        if not aside or min(picture.size) == max(picture.size):
            grey_levels(pixels(picture), theirs, pixels, 1.001)


@torch.no_grad()
def test_a_model_is_written_for_the_size_of_its_pixels(tmp_path: Path) -> None:
    """Positions of 32 pixels, used at 48: resampled as the model does it itself."""
    model = made("vit-pico/8(depth=2, image_size=32)")
    images = torch.randn(2, 3, 48, 48)
    for layout in ("timm", "hf"):
        done = export(model, layout, tmp_path / layout)
        assert "positions were interpolated from images of 32 pixels to 48" in done.notes
        same(model.logits(images), mirada.load(tmp_path / layout).logits(images))
    same(model.logits(images), in_timm(tmp_path / "timm")(images))


# --- refusals ------------------------------------------------------------------------------------------------------

TIMM_LACKS = {
    f"vit-pico/8({VIT}, stem='convolutional')": "stem='convolutional': train one with stem='patch'",
    f"vit-pico/8({VIT}, stem='deep')": "stem='deep'",
    f"vit-pico/8({VIT}, pooling='sequence')": "pooling='sequence': train with pooling='average'",
    f"vit-pico/8({VIT}, epsilon=1e-12)": "epsilon=1e-06 or 1e-05, and this model's 1e-12: export it as hf",
    f"vit-pico/8({VIT}, positions='rotary')": "rotary positions with epsilon=1e-05.*export it as hf",
    f"vit-pico/8({VIT}, activation='swiglu', pooling='attention')": "pooling='attention' with activation='swiglu'",
    f"vit-pico/8({VIT}, positions='rotary', epsilon=1e-5, pooling='attention')": "no rotary positions with pooling",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), image_size=48)": "variant='0_rw'",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), image_size=48, variant='timm')": "variant='0_rw'",
    "resnet-18(small_images=True, widths=(8, 8, 8, 8))": "small_images=True: train without it",
    "resnet-18(stem_width=32, widths=(8, 8, 8, 8))": "stem_width=32: export it as hf",
    "resnet-18(depths=(1, 1, 1))": "four stages, and this one 3: export it as hf",
    "regnety-400mf(plan=((24, 1, 8), (56, 1, 8), (152, 4, 8), (376, 7, 8)))": "this one's plan: export it as hf",
}
TRANSFORMERS_LACKS = {
    f"vit-pico/8({VIT}, stem='deep')": "stem='deep': train one with stem='patch'",
    f"vit-pico/8({VIT}, pooling='sequence')": "pooling='sequence': train one with pooling='average'",
    f"vit-pico/8({VIT}, pooling='attention')": "not its pooling='attention': export it as timm",
    f"vit-pico/8({VIT}, pooling='average', registers=2)": "registers=2 and pooling='average': export it as timm",
    f"vit-pico/8({VIT}, pooling='average', activation='swiglu')": "activation='swiglu': export it as timm",
    f"vit-pico/8({VIT}, pre_norm=True)": "no head on its class token .pre_norm=True.: export it as timm",
    f"vit-pico/8({VIT}, positions='rotary')": "rotary positions and a head: export it as timm",
    f"vit-pico/8({VIT}, layer_scale=0.1, mlp_ratio=3.5)": "224 for 64: export it as timm",
    "coatnet-0(widths=(32, 32, 64, 64, 96), depths=(1, 1, 1, 1), variant='0_rw')": "no CoAtNet: export it as timm",
    "resnet-18(small_images=True, widths=(8, 8, 8, 8))": "small_images=True: train without it",
    "regnety-400mf(plan=((24, 1, 8), (56, 1, 8), (152, 4, 38), (368, 7, 8)))": "groups of one width",
}


@pytest.mark.parametrize(("layout", "architecture", "said"), [
    *(("timm", *row) for row in TIMM_LACKS.items()), *(("hf", *row) for row in TRANSFORMERS_LACKS.items()),
])  # fmt: skip
def test_what_there_is_no_network_for(layout: str, architecture: str, said: str, tmp_path: Path) -> None:
    build(architecture)
    with pytest.raises(MiradaError, match=said) as refusal:
        export(made(architecture), layout, tmp_path / "out")
    assert str(refusal.value).count(". ") == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("layout", "options", "said"), [
    ("timm", {"mirror": True}, 'set "mirror" to false in its config.json'),
    ("hf", {"mirror": True}, 'set "mirror" to false in its config.json'),
    ("timm", {"head_input": "class and average"}, "reads class and average, as this one does: export it as hf"),
    ("timm", {"head": False, "projection": Projection(8, True, True)}, r"\(projection\): export it as hf"),
    ("timm", {"head": False, "projection": Projection(8), "text": TextDesign(**SMALL, dim=8)}, "no text towers"),
    ("hf", {"head": False, "projection": Projection(8), "text": TextDesign(**SMALL, dim=8)}, "pre_norm=True"),
    ("hf", {"head": False, "projection": Projection(8, True, False)}, "another projection than this model"),
    ("hf", {"pixels": Preprocess((48, 64))}, "48x64 pixels: only models of square ones"),
    ("hf", {"pixels": replace(BILINEAR, resampler="torch-float", antialias=False)}, "antialias=False"),
    ("timm", {"pixels": Preprocess((48, 48), "none")}, "timm always resizes"),
    ("timm", {"pixels": Preprocess((48, 48), "squash", (48, 60))}, "which is none: export it as hf"),
])  # fmt: skip
def test_what_there_is_no_word_for(layout: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(MiradaError, match=said):
        export(made(f"vit-pico/8({VIT})", **options), layout, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_biases_of_keys_that_timm_does_not_have(tmp_path: Path) -> None:
    model = made(VITS["rotary"])
    fill(model)
    with pytest.raises(MiradaError, match="biases of keys, which this model has, have no place"):
        export(model, "timm", tmp_path / "out")


# --- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_is_replaced_whole_if_an_export_wrote_it(tmp_path: Path) -> None:
    model, out = made(f"vit-pico/8({VIT})"), tmp_path / "inside" / "out"
    export(model, "hf", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    done = export(model, "timm", out)
    assert done.files == sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["config.json", "thesis.tex"])
def test_a_folder_with_other_things_is_left_alone(name: str, tmp_path: Path) -> None:
    model, out = made(f"vit-pico/8({VIT})"), tmp_path / "out"
    if name == "thesis.tex":
        export(model, "timm", out)
    out.mkdir(exist_ok=True)
    (out / name).write_text("{}")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(MiradaError, match=re.escape(f"{out} holds {name}") + ".*choose another --out"):
        export(model, "timm", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(MiradaError, match="is not a folder"):
        export(model, "timm", out / name)


def test_what_was_there_stays_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = made(f"vit-pico/8({VIT})"), tmp_path / "out"
    export(model, "timm", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(MiradaError, match="No space left"):
        export(model, "hf", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
