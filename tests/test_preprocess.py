import dataclasses

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


@pytest.mark.parametrize(("size", "fraction", "image", "resized"), [
    ((224, 224), 1.0, (640, 480), (298, 224)),  # torchvision Resize(224): int(224 * 640 / 480) = 298
    ((224, 224), 0.875, (640, 480), (341, 256)),  # timm's usual: Resize(256), CenterCrop(224)
    ((224, 224), 0.875, (480, 640), (256, 341)),
    ((224, 224), 0.9, (500, 375), (330, 248)),  # timm: floor(224 / 0.9) = 248
    ((32, 32), 1.0, (1000, 1), (32000, 32)),
    ((100, 200), 1.0, (300, 300), (200, 200)),
])  # fmt: skip
def test_crop_sizes_round_as_the_published_pipelines_do(size, fraction, image, resized):
    assert Preprocess(size, "crop", fraction)._resized(*image) == resized


def test_crop_cuts_the_centre_out():
    found = Preprocess((4, 4), "crop").pixels(ramp(10, 4))
    assert found[0, 0].tolist() == [3, 4, 5, 6]
    found = Preprocess((4, 4), "crop", 0.5).pixels(ramp(8, 8))
    assert found[0, 0].tolist() == [2, 3, 4, 5]
    assert found[1, :, 0].tolist() == [2, 3, 4, 5]


def test_a_hair_does_not_take_gigabytes():
    found = Preprocess((8, 8), "crop").pixels(ramp(100_000, 2))
    assert found.shape == (3, 8, 8)
    assert Preprocess((8, 8), "pad").pixels(ramp(2, 100_000)).shape == (3, 8, 8)


def test_squash_ignores_the_aspect_ratio():
    image = ramp(200, 50)
    found = Preprocess((64, 64), "squash", interpolation="bilinear").pixels(image)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    assert (found.permute(1, 2, 0).numpy() == expected).all()


def test_pad_fills_with_the_mean_colour():
    found = Preprocess((6, 4), "pad", mean=(0.2, 0.4, 0.6), std=(1, 1, 1)).pixels(ramp(4, 2))
    assert found[:, 0, 0].tolist() == found[:, 5, 3].tolist() == [51, 102, 153]
    assert found[1, 2:4, 1].tolist() == [0, 1]
    assert Preprocess((6, 4), "pad")._resized(2, 300) == (1, 6)


def test_other_modes_become_rgb():
    assert Preprocess((4, 4))(Image.new("L", (9, 9), 255)).shape == (3, 4, 4)


def test_reads_at_least_twice_what_it_needs():
    assert Preprocess((224, 160), crop_fraction=0.875).reads_at_least() == 512


def test_dictionary_and_back():
    preprocess = Preprocess((32, 48), "pad", 0.9, "lanczos", (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    values = preprocess.to_dict()
    assert values["size"] == [32, 48]
    assert Preprocess.from_dict(values) == preprocess


@pytest.mark.parametrize(("change", "message"), [
    ({"sise": 3}, "unknown 'sise'"),
    ({"size": None}, "missing 'size'"),
    ({"size": [0, 4]}, "size is .0, 4.: it must be height and width"),
    ({"size": 224}, "Cannot read the preprocessing"),
    ({"resize": "stretch"}, "resize is 'stretch': it must be one of squash, crop, pad"),
    ({"interpolation": "box"}, "interpolation is 'box': it must be one of bilinear"),
    ({"crop_fraction": 0}, "crop_fraction is 0"),
    ({"crop_fraction": 1.2}, "crop_fraction is 1.2"),
    ({"mean": [0.5]}, "mean is"),
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
