"""Exported models of images and words are read by transformers with the same features and scores."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exported import SMALL, fill, in_transformers, made, same
from peers import import_torchvision
from vocabularies import byte_fallback_pairs, unigrams

import_torchvision()
import transformers  # noqa: E402

import mirada  # noqa: E402
from mirada.export.layouts import export  # noqa: E402
from mirada.model import Model, Projection  # noqa: E402
from mirada.preprocess import Preprocess  # noqa: E402
from mirada.text import TextDesign  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")


TEXTS = [
    "A photo of a dog.",
    "un niño con un perro, ¡qué bien!",
    "🐶",
    "",
    "it's under_scored & more",
    "many words " * 60,
]
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
