"""OpenAI's CLIP, from files of its own layout, beside open_clip's reading of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from conftest import Parity
from open_clip.model import build_model_from_openai_state_dict
from torch import nn

import mirada
from mirada.checkpoints import open_clip_names
from mirada.checkpoints.open_clip_names import model_config
from mirada.checkpoints.openai import NAMES, plan, repository
from mirada.errors import MiradaError

TEXTS = ["a photo of a dog", "¿Un perro?", "🐶", "", "words " * 90]


@torch.no_grad()
def test_half_precision_files(
    randomise: Callable[..., nn.Module], parity: Parity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(open_clip_names.SIZES, "B", (2, 768, 64, 4.0, 512, 8, 2, 512))
    config = model_config("ViT-B-32-quickgelu")
    state = randomise(open_clip.CLIP(**config)).half().state_dict()
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    state |= {name: torch.tensor(value) for name, value in numbers.items()}
    torch.save(state, tmp_path / "ViT-B-32.pt")
    theirs: Any = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32).float().eval()
    ours = mirada.load("openai:ViT-B/32", weights=tmp_path / "ViT-B-32.pt")
    images = torch.randn(2, 3, 224, 224)
    theirs.visual.output_tokens = True
    patches = theirs.visual(images)[1]
    theirs.visual.output_tokens = False
    parity("OpenAI CLIP", "ViT-B/32, 2 layers", {
        "encode_image": (ours.encode_image(images), theirs.encode_image(images)),
        "patches": (ours.backbone(images).patches.flatten(1, 2), patches),
        "encode_text": (ours.encode_text(TEXTS), theirs.encode_text(open_clip.tokenize(TEXTS))),
    })  # fmt: skip
    assert ours.logit_scale == pytest.approx(theirs.logit_scale.exp().item(), rel=1e-6)
    assert "quickgelu" in ours.architecture


def test_names() -> None:
    assert [repository(name) for name in NAMES] == [
        "timm/vit_base_patch32_clip_224.openai", "timm/vit_base_patch16_clip_224.openai",
        "timm/vit_large_patch14_clip_224.openai", "timm/vit_large_patch14_clip_336.openai",
    ]  # fmt: skip
    assert plan("ViT-L/14@336px", None, {}).design.preprocess.size == (336, 336)
    for name, said in (
        ("RN50x4", "sees with a ResNet of its own kind.*choose one of ViT-B/32"),
        ("ViT-B/23", "did you mean 'ViT-B/32'"),
        ("BERT", "has no CLIP 'BERT': choose one of ViT-B/32"),
    ):  # fmt: skip
        with pytest.raises(MiradaError, match=said):
            repository(name)
