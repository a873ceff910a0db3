"""Exported models get the same pixels from their library's own preprocessing."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from exported import BILINEAR, VIT, config_of, grey_levels, in_timm, made, photograph, same
from peers import import_torchvision

import_torchvision()
import transformers  # noqa: E402
from timm.data import create_transform, resolve_data_config  # noqa: E402

import mirada  # noqa: E402
from mirada.errors import MiradaError  # noqa: E402
from mirada.export.layouts import export  # noqa: E402
from mirada.preprocess import Preprocess  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:timm", "ignore::FutureWarning", "ignore:.*jit.script")


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
