"""Geometry against a slow loop, colour operations against the paper's definitions."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mirada.data.augment import AUGMENTATIONS, Augmentation, augmentation, draw_boxes, erase, resample, resample_bytes
from mirada.data.randaugment import OPERATIONS, randaugment
from mirada.errors import MiradaError


def pixels(count: int = 4, side: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_the_whole_box_at_the_same_size_changes_nothing() -> None:
    images = pixels()
    boxes = torch.tensor([[0.0, 16.0, 0.0, 16.0]]).repeat(4, 1)
    assert torch.equal(resample(images, boxes, (16, 16)), images.float())


def test_a_reversed_box_mirrors() -> None:
    images = pixels()
    boxes = torch.tensor([[0.0, 16.0, 16.0, 0.0]]).repeat(4, 1)
    assert torch.equal(resample(images, boxes, (16, 16)), images.flip(3).float())


def test_a_box_of_whole_pixels_copies_them() -> None:
    images = pixels()
    boxes = torch.tensor([[3.0, 11.0, 5.0, 13.0]]).repeat(4, 1)
    assert torch.equal(resample(images, boxes, (8, 8)), images[:, :, 3:11, 5:13].float())


def test_outside_continues_the_mirror_image() -> None:
    images = pixels()
    boxes = torch.tensor([[-2.0, 14.0, 0.0, 16.0]]).repeat(4, 1)
    expected = torch.cat([images[:, :, :2].flip(2), images[:, :, :14]], 2).float()
    assert torch.equal(resample(images, boxes, (16, 16)), expected)


def test_shrinking_is_antialiased_as_pillow_does() -> None:
    images = pixels(1, 64)
    ours = resample(images, torch.tensor([[0.0, 64.0, 0.0, 64.0]]), (24, 24))[0]
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    pillow = torch.tensor(list(picture.resize((24, 24), Image.Resampling.BILINEAR).tobytes())).view(24, 24, 3)
    assert (ours.permute(1, 2, 0) - pillow).abs().max() < 1.01


def test_enlarging_agrees_with_torch() -> None:
    images = pixels(2, 8)
    ours = resample(images, torch.tensor([[0.0, 8.0, 0.0, 8.0]]).repeat(2, 1), (20, 12))
    theirs = torch.nn.functional.interpolate(images.float(), (20, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(48, 48), (64, 80), (20, 24)])
def test_bytes_are_resampled_as_floats_are_to_a_grey_level(size: tuple[int, int]) -> None:
    images = pixels(3, 64)
    boxes = torch.tensor([[0.0, 64.0, 0.0, 64.0], [3.2, 50.8, 61.0, 9.0], [-4.0, 60.0, 12.0, 76.0]])
    fast = resample_bytes(images, boxes, size)
    parts = [images[0], images[1, :, 3:51, 9:61].flip(2), torch.cat([images[2, :, :4].flip(1), images[2, :, :60]], 1)]
    parts[2] = torch.cat([parts[2][:, :, 12:], parts[2][:, :, -12:].flip(2)], 2)
    for ours, part in zip(fast, parts, strict=True):
        height, width = part.shape[1:]
        slow = resample(part[None].float(), torch.tensor([[0.0, height, 0.0, width]]), size)[0]
        assert (ours - slow).abs().max() <= 1


def test_bytes_take_the_fast_way_and_empty_boxes_one_pixel() -> None:
    images = pixels(2, 64)
    boxes = torch.tensor([[8.0, 40.0, 48.0, 16.0], [63.2, 63.4, 5.1, 5.2]])
    assert torch.equal(resample(images, boxes, (64, 64)), resample_bytes(images, boxes, (64, 64)).float())
    assert torch.equal(resample_bytes(images, boxes, (4, 4))[1], images[1, :, 63:, 5:6].expand(3, 4, 4))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_range_and_is_repeatable(name: str) -> None:
    aspect = torch.tensor([1.0, 1.5, 0.6, 1.0])
    first, second = (AUGMENTATIONS[name](pixels(), aspect, (12, 12), generator()) for _ in range(2))
    assert first.shape == (4, 3, 12, 12)
    assert torch.equal(first, second)
    assert first.min() >= -1e-3
    assert first.max() <= 255 + 1e-3


@settings(max_examples=40, deadline=None)
@given(aspect=st.floats(0.2, 5.0), low=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
def test_zoom_boxes_stay_inside_and_keep_their_shape(aspect: float, low: float, seed: int) -> None:
    how = Augmentation("zoom", scale=(low, 1.0))
    boxes = draw_boxes(how, torch.full((8,), aspect), 100, (32, 32), torch.Generator().manual_seed(seed))
    assert boxes.min() >= -1e-3
    assert boxes.max() <= 100 + 1e-3
    tall, wide = boxes[:, 1] - boxes[:, 0], (boxes[:, 3] - boxes[:, 2]).abs() * aspect
    shape = wide / tall
    assert bool(((shape > 0.74) & (shape < 1.34)).all())


def test_a_wide_picture_keeps_its_proportions_when_all_of_it_cannot_be_seen() -> None:
    boxes = draw_boxes(AUGMENTATIONS["none"], torch.tensor([2.0]), 100, (32, 32), generator())
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 100.0, 25.0, 75.0]]))


def test_shifts_move_by_whole_pixels() -> None:
    images = pixels(32)
    shifted = AUGMENTATIONS["light"](images, torch.ones(32), (16, 16), generator())
    assert torch.equal(shifted, shifted.round())


def test_erasing_paints_the_mean_colour_in_one_box() -> None:
    images = pixels(8).float()
    erased = erase(images, 1.0, generator())
    changed = (erased != images).any(1)
    share = changed.float().mean((1, 2))
    assert bool((share > 0).all())
    assert bool((share < 0.5).all())
    for image, mask, before in zip(erased, changed, images, strict=True):
        torch.testing.assert_close(image[:, mask], before.mean((1, 2))[:, None].expand(-1, int(mask.sum())))
    assert torch.equal(erase(images, 0.0, generator()), images)


def test_options_by_name_and_by_table() -> None:
    assert augmentation({"base": "zoom", "scale": [0.5, 1.0]}).scale == (0.5, 1.0)
    assert augmentation("strong") == AUGMENTATIONS["strong"]
    with pytest.raises(MiradaError, match="no augmentation 'strnog'"):
        augmentation("strnog")
    with pytest.raises(MiradaError, match="no augmentation option 'scael'"):
        augmentation({"scael": 1})


@pytest.mark.parametrize(("options", "said"), [
    ({"crop": "zom"}, "option crop is 'zom', and should be shift, zoom or whole"), ({"scale": 0.5}, "two shares"),
    ({"scale": [0.9, 0.1]}, "two shares"), ({"ratio": [0, 1]}, "two numbers above 0"),
    ({"jitter": 0.4}, "four numbers"),
    ({"jitter": [0.4, 0.4, 0.4]}, "four numbers"), ({"blur": 2}, "a share from 0 to 1"),
    ({"grey": "half"}, "a share from 0 to 1"), ({"operations": -1}, "a whole number"),
])  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(MiradaError, match=said):
        augmentation(options)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_range_and_do_nothing_at_no_strength(name: str) -> None:
    images = pixels().float()
    strong = OPERATIONS[name](images, torch.tensor([0.9, -0.9, 0.9, -0.9]))
    assert strong.shape == images.shape
    assert strong.min() >= -1e-2
    assert strong.max() <= 255 + 1e-2
    if name in ("autocontrast", "equalise"):
        assert strong.amax() == pytest.approx(255)
    else:
        torch.testing.assert_close(OPERATIONS[name](images, torch.zeros(4)), images, atol=2e-3, rtol=0)


def test_rotation_by_a_quarter_turn_is_a_quarter_turn() -> None:
    images = pixels().float()
    turned = OPERATIONS["rotate"](images, torch.full((4,), 3.0))  # 3 * 30 degrees
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)), atol=0.1, rtol=0)


def test_solarise_and_posterise_follow_their_definitions() -> None:
    image = torch.tensor([0.0, 100.0, 200.0, 255.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert OPERATIONS["solarise"](image, torch.tensor([0.5]))[0, 0, 0].tolist() == [0, 100, 55, 0]
    assert OPERATIONS["posterise"](image, torch.tensor([1.0]))[0, 0, 0].tolist() == [0, 96, 192, 240]


def test_equalise_spreads_a_ramp_and_leaves_a_flat_channel() -> None:
    ramp = (torch.arange(256).float() / 8).floor().view(1, 1, 16, 16).expand(1, 3, 16, 16)
    flat = torch.full((1, 3, 16, 16), 7.0)
    spread = OPERATIONS["equalise"](torch.cat([ramp, flat]), torch.zeros(2))
    assert spread[0].min() == 0
    assert spread[0].max() == 255
    assert torch.equal(spread[1:], flat)


def test_randaugment_changes_images_and_none_twice_alike() -> None:
    images = pixels(64).float()
    changed = randaugment(images, 2, 9, generator())
    assert (changed != images).any((1, 2, 3)).float().mean() > 0.7
