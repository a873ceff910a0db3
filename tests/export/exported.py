"""Models to export, what other libraries read of them, and how the two are compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import import_torchvision
from PIL import Image
from torch import Tensor, nn

import_torchvision()
import timm  # noqa: E402
import transformers  # noqa: E402

import mirada  # noqa: E402
from mirada.model import Design, Model  # noqa: E402
from mirada.preprocess import Preprocess  # noqa: E402

TOLERANCE = 2e-5  # of the largest number in the model's output
CLASSES = ("ant", "bee", "cow")
BILINEAR = Preprocess((48, 48), "squash", None, "bilinear")
VIT = "depth=2, image_size=48"
SMALL = {"width": 48, "depth": 2, "num_heads": 4, "hidden": 96}


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
