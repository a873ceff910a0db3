import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from mirada.errors import MiradaError
from mirada.preprocess import Preprocess


def ramp(width: int, height: int) -> Image.Image:
    """Red is the column, green is the row."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def test_an_image_of_the_right_size_is_only_normalised():
    image = ramp(4, 3)
    found = Preprocess((3, 4), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))(image)
    expected = (np.asarray(image, np.float32) / 255 - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, 0.25, 2.0])
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.from_numpy(expected).permute(2, 0, 1), atol=1e-6)


def test_normalise_takes_batches_and_keeps_its_input():
    preprocess = Preprocess((4, 4))
    pixels = torch.stack([preprocess.pixels(ramp(4, 4)), preprocess.pixels(ramp(8, 4))])
    before = pixels.clone()
    assert torch.equal(preprocess.normalise(pixels)[1], preprocess(ramp(8, 4)))
    assert torch.equal(pixels, before)


@pytest.mark.parametrize(("resize", "box", "image", "resized"), [
    ("crop", (224, 224), (640, 480), (298, 224)),  # torchvision Resize(224): int(224 * 640 / 480) = 298
    ("crop", (256, 256), (640, 480), (341, 256)),
    ("crop", (256, 256), (480, 640), (256, 341)),
    ("crop", (248, 248), (500, 375), (330, 248)),
    ("crop", (32, 32), (1000, 1), (32000, 32)),
    ("crop", (100, 200), (300, 300), (200, 200)),
    ("crop", (101, 100), (640, 480), (135, 101)),  # timm ResizeKeepRatio: round(101 * 640 / 480 = 134.7)
    ("pad", (224, 224), (640, 479), (224, 168)),  # 167.65
    ("pad", (6, 4), (2, 300), (1, 6)),
    ("squash", (5, 9), (640, 480), (9, 5)),
    ("none", None, (640, 480), (640, 480)),
])  # fmt: skip
def test_sizes_round_as_the_published_pipelines_do(resize, box, image, resized):
    assert Preprocess((224, 224), resize, box)._resized(*image) == resized


def test_crop_cuts_the_centre_out():
    found = Preprocess((4, 4), "crop").pixels(ramp(10, 4))
    assert found[0, 0].tolist() == [3, 4, 5, 6]
    found = Preprocess((4, 4), "crop", (8, 8)).pixels(ramp(8, 8))
    assert found[0, 0].tolist() == [2, 3, 4, 5]
    assert found[1, :, 0].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(("halves", "first"), [
    ("even", [[0, 3], [2, 5], [2, 5]]),  # round(0.5) = 0, round(1.5) = 2
    ("down", [[0, 3], [1, 4], [2, 5]]),
])  # fmt: skip
def test_halves(halves, first):
    preprocess = Preprocess((4, 4), "none", halves=halves)
    found = [preprocess.pixels(ramp(width, 4))[0, 0, [0, 3]].tolist() for width in (5, 7, 8)]
    assert found == first


def test_what_is_not_resized_is_cut_or_bordered():
    found = Preprocess((3, 4), "none", fill=(7, 8, 9)).pixels(ramp(2, 6))
    assert found.tolist() == [
        [[7, 0, 1, 7]] * 3,
        [[8, row, row, 8] for row in (2, 3, 4)],  # round(1.5) = 2
        [[9, 0, 0, 9]] * 3,
    ]


def test_a_border_is_wider_on_the_far_side():
    found = Preprocess((1, 5), "none", fill=(7, 8, 9)).pixels(ramp(2, 1))
    assert found[0].tolist() == [[7, 0, 1, 7, 7]]  # torchvision pads with 3 // 2 before


@pytest.mark.parametrize("resampler", ["pillow", "torch", "torch-float"])
def test_a_hair_does_not_take_gigabytes(resampler):
    found = Preprocess((224, 224), "crop", resampler=resampler).pixels(ramp(100_000, 2))
    assert found.shape == (3, 224, 224)
    assert found[1, 0].unique().tolist() == [0]
    assert found[1, -1].unique().tolist() == [1]
    assert Preprocess((8, 8), "pad", resampler=resampler).pixels(ramp(2, 100_000)).shape == (3, 8, 8)


@pytest.mark.parametrize(("interpolation", "resize", "most"), [
    ("nearest", "squash", 0), ("bilinear", "crop", 1), ("bicubic", "crop", 1), ("bicubic", "squash", 1),
])  # fmt: skip
def test_resamplers_agree_where_nothing_overshoots(interpolation, resize, most):
    image = Image.fromarray(np.random.default_rng(0).integers(96, 160, (60, 90, 3), np.uint8))
    pillow, *others = (
        Preprocess((32, 32), resize, interpolation=interpolation, resampler=resampler).pixels(image).int()
        for resampler in ("pillow", "torch", "torch-float")
    )
    assert pillow.unique().numel() > 20
    for other in others:
        assert (pillow - other).abs().max() <= most


def test_without_antialias_pixels_are_sampled():
    columns = Image.fromarray(np.tile(np.uint8([[[0] * 3, [255] * 3]]), (8, 16, 1)))  # 32 columns, black and white
    sharp = Preprocess((8, 8), "squash", None, "bilinear", "torch", antialias=False)
    assert sharp.pixels(columns).unique().tolist() == [128]  # between two columns
    thirds = dataclasses.replace(sharp, size=(8, 11))
    smooth = dataclasses.replace(thirds, antialias=True)
    spread = [pixels.max() - pixels.min() for pixels in (thirds.pixels(columns).int(), smooth.pixels(columns).int())]
    assert spread[0] > 200 > 90 > spread[1]


def test_squash_ignores_the_aspect_ratio():
    image = ramp(200, 50)
    found = Preprocess((64, 64), "squash", interpolation="bilinear").pixels(image)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    assert (found.permute(1, 2, 0).numpy() == expected).all()


def test_pad_fills_with_the_mean_colour():
    found = Preprocess((6, 4), "pad", mean=(0.2, 0.4, 0.6), std=(1, 1, 1)).pixels(ramp(4, 2))
    assert found[:, 0, 0].tolist() == found[:, 5, 3].tolist() == [51, 102, 153]
    assert found[1, 2:4, 1].tolist() == [0, 1]
    found = Preprocess((6, 4), "pad", fill=(1, 2, 3)).pixels(ramp(4, 2))
    assert found[:, 0, 0].tolist() == found[:, 5, 3].tolist() == [1, 2, 3]


def test_other_modes_become_rgb():
    assert Preprocess((4, 4))(Image.new("L", (9, 9), 255)).shape == (3, 4, 4)


def test_pictures_are_seen_as_a_person_sees_them(tmp_path):
    """Also those that somebody else has opened: turned as EXIF says, and with transparency on white."""
    lying, clear = Image.new("RGB", (30, 20), "red"), Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    lying.paste("blue", (0, 0, 15, 20))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif, quality=100, subsampling=0)
    pixels = Preprocess((30, 20), "none").pixels(Image.open(tmp_path / "lying.jpg")).float()
    assert pixels[2, :13].mean() > 240  # blue is above
    assert pixels[0, 17:].mean() > 240
    assert Preprocess((20, 20)).pixels(clear).min() == 255


def test_reads_at_least_twice_what_it_needs():
    assert Preprocess((224, 160), box=(256, 182)).reads_at_least() == 512
    assert Preprocess((224, 160)).reads_at_least() == 448


def test_reads_all_where_the_size_of_the_file_matters():
    assert Preprocess((224, 160), "none").reads_at_least() is None
    assert Preprocess((32, 32), interpolation="bilinear", resampler="torch", antialias=False).reads_at_least() is None
    assert Preprocess((32, 32), interpolation="nearest").reads_at_least() is None


def test_dictionary_and_back():
    preprocess = Preprocess(
        (32, 48), "pad", (40, 60), "bilinear", "torch", False, "down", (1, 2, 3), (0.5, 0.5, 0.5), (0.1, 0.2, 0.3)
    )
    values = json.loads(json.dumps(preprocess.to_dict()))
    assert values["size"] == [32, 48]
    assert Preprocess.from_dict(values) == preprocess
    plain = Preprocess((32, 48))
    assert all(getattr(plain, field.name) != getattr(preprocess, field.name) for field in dataclasses.fields(plain)[1:])
    assert Preprocess.from_dict(json.loads(json.dumps(plain.to_dict()))) == plain


def test_files_of_the_first_version():
    colours = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    old = {"size": [224, 224], "resize": "crop", "crop_fraction": 0.9, "interpolation": "bicubic", **colours}
    assert Preprocess.from_dict(old) == Preprocess((224, 224), box=(248, 248))
    old |= {"size": [24, 24], "resize": "squash", "crop_fraction": 1.0}
    assert Preprocess.from_dict(old).pixels(ramp(50, 30)).equal(Preprocess((24, 24), "squash").pixels(ramp(50, 30)))
    assert "crop_fraction" in old  # what is given is not changed


@pytest.mark.parametrize(("change", "message"), [
    ({"sise": 3}, "unknown 'sise'"),
    ({"size": None}, "missing 'size'"),
    ({"size": [0, 4]}, "size is .0, 4.: it must be height and width"),
    ({"size": [4.0, 4]}, "size is .4.0, 4.: it must be height and width"),
    ({"size": 224}, "size is 224: it must be height and width"),
    ({"box": [224]}, "box is .224,.: it must be height and width"),
    ({"resize": "stretch"}, "resize is 'stretch': it must be one of squash, crop, pad, none"),
    ({"resize": ["crop"]}, "resize is .'crop',.: it must be one of"),
    ({"interpolation": "area"}, "interpolation is 'area': it must be one of nearest, box, bilinear"),
    ({"resampler": "opencv"}, "resampler is 'opencv': it must be one of pillow, torch, torch-float"),
    ({"resampler": "torch", "interpolation": "lanczos"}, "is 'torch': it must be pillow for lanczos interpolation"),
    ({"antialias": False}, "antialias is False: it must be true, or false for a torch resampler"),
    ({"antialias": "no"}, "antialias is 'no'"),
    ({"halves": "up"}, "halves is 'up': it must be one of even, down"),
    ({"fill": [0, 0, 256]}, "fill is .0, 0, 256.: it must be red, green and blue"),
    ({"fill": 0}, "fill is 0"),
    ({"crop_fraction": 0}, "crop_fraction is 0"),
    ({"crop_fraction": 1.2}, "crop_fraction is 1.2"),
    ({"crop_fraction": "all"}, "crop_fraction is 'all'"),
    ({"mean": [0.5]}, "mean is"),
    ({"mean": "red"}, "mean is 'red': it must be three numbers"),
    ({"std": None}, "missing 'std'"),
    ({"std": [1, 1, 0]}, "std is"),
])  # fmt: skip
def test_bad_values_are_refused(change, message):
    values = Preprocess((32, 32)).to_dict() | change
    values = {key: value for key, value in values.items() if value is not None}
    with pytest.raises(MiradaError, match=message):
        Preprocess.from_dict(values)


def test_it_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Preprocess((32, 32)).size = (1, 1)  # type: ignore[misc]
