"""Colour distortion against a plain loop of its steps, the blur against the sum that defines it."""

import math

import pytest
import torch
from torch import Tensor

from mirada.data.colour import LUMA, YIQ, blur, distort_colours, solarise


def pixels(count: int = 6, side: int = 12) -> Tensor:
    return 60 + 120 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(4))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def slowly(image: Tensor, changes: list[float], order: list[int]) -> Tensor:
    """One image (3, H, W), step by step, pixel value by pixel value."""
    luma = torch.tensor(LUMA)[:, None, None]
    for kind in order:
        factor = 1 + changes[kind]
        if kind == 0:
            image = image * factor
        elif kind == 1:
            image = (image * luma).sum(0).mean() * (1 - factor) + image * factor
        elif kind == 2:
            image = (image * luma).sum(0) * (1 - factor) + image * factor
        else:
            y, i, q = (torch.tensor(YIQ) @ image.flatten(1)).view_as(image)
            angle = 2 * math.pi * changes[3]
            turned = torch.stack(
                [y, i * math.cos(angle) - q * math.sin(angle), i * math.sin(angle) + q * math.cos(angle)]
            )
            image = (torch.linalg.inv(torch.tensor(YIQ)) @ turned.flatten(1)).view_as(image)
    return image.clamp(0, 255)


def test_one_product_is_the_steps_one_by_one() -> None:
    images, jitter = pixels(), (0.2, 0.3, 0.4, 0.1)
    found = distort_colours(images, jitter, 0.7, 0.0, generator())
    g = generator()
    applied = torch.rand(6, generator=g) < 0.7
    draws = 2 * torch.rand(4, 6, generator=g) - 1
    order = torch.randperm(4, generator=g).tolist()
    assert 0 < applied.sum() < 6
    for number, image in enumerate(images):
        changes = [float(draws[kind, number]) * jitter[kind] * float(applied[number]) for kind in range(4)]
        torch.testing.assert_close(found[number], slowly(image, changes, order), atol=1e-3, rtol=1e-5)


def test_grey_images_have_three_equal_channels_and_the_same_light() -> None:
    images = pixels(200, 4)
    found = distort_colours(images, None, 0.0, 0.2, generator())
    grey = (found - found[:, :1]).abs().amax((1, 2, 3)) < 1e-3
    assert 20 <= int(grey.sum()) <= 60
    luma = torch.tensor(LUMA)[:, None, None]
    torch.testing.assert_close(found[grey][:, 0], (images[grey] * luma).sum(1), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(found[~grey], images[~grey], atol=1e-3, rtol=1e-5)


def test_colours_stay_in_range() -> None:
    found = distort_colours(255 * (pixels() > 120).float(), (0.8, 0.8, 0.8, 0.2), 1.0, 0.0, generator())
    assert found.min() >= 0
    assert found.max() <= 255


@pytest.mark.parametrize("deviation", [0.1, 1.0, 2.0])
def test_blur_is_a_gaussian(deviation: float) -> None:
    images = pixels(1, 15)
    found = blur(images, 1.0, generator(), (deviation, deviation))
    weights = torch.tensor([[math.exp(-((y - 7) ** 2 + (x - 4) ** 2) / (2 * deviation**2)) for x in range(15)]
                            for y in range(15)])  # fmt: skip
    expected = (images[0] * weights).sum((1, 2)) / weights.sum()
    torch.testing.assert_close(found[0, :, 7, 4], expected, atol=1e-3, rtol=1e-4)


def test_blur_leaves_the_others_and_its_argument_alone() -> None:
    images = pixels(40)
    before = images.clone()
    changed = (blur(images, 0.5, generator()) != before).flatten(1).any(1)
    assert 8 <= int(changed.sum()) <= 32
    assert torch.equal(images, before)


def test_solarise() -> None:
    images = torch.tensor([10.0, 200.0]).view(1, 1, 1, 2).repeat(1, 3, 1, 1)
    assert solarise(images, 1.0, generator())[0, 0, 0].tolist() == [10.0, 55.0]
    assert torch.equal(solarise(images, 0.0, generator()), images)
