"""Positions, first filters and colours of patches."""

import pytest
import torch
from torch.nn import functional as F

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.inspect.filters import filter_components, patch_filters
from mirada.inspect.pca import patch_colours, patch_pca
from mirada.inspect.position import position_similarity

SMALL = "vit-pico/8(depth=1, image_size=32)"


def vit(options: str = "") -> object:
    torch.manual_seed(0)
    return build(f"vit-pico/8(depth=1, image_size=32{options})")


@pytest.mark.parametrize("options", ["", ", positions='sincos'", ", registers=2"])
def test_positions_are_cosines_of_the_table(options: str) -> None:
    made = vit(options)
    found = position_similarity(made)
    table = made.position_table((4, 4))[0].detach()
    for i, j in ((0, 5), (3, 15), (7, 7)):
        expected = F.cosine_similarity(table[i], table[j], dim=0)
        torch.testing.assert_close(found[i // 4, i % 4, j // 4, j % 4], expected)
    torch.testing.assert_close(found.flatten(2).flatten(0, 1).diagonal(), torch.ones(16))
    assert position_similarity(made, (2, 6)).shape == (2, 6, 2, 6)


def test_near_places_are_more_alike_than_far_ones_in_sines() -> None:
    found = position_similarity(vit(", positions='sincos'"), (8, 8))
    row = found[0, 0, 0]
    assert row[0] > row[1] > row[2]
    assert (row[3:] < row[1]).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [("vit-pico/8(positions='rotary')", "turns queries and keys"), ("vit-pico/8(positions='none')", "knows no places"),
     ("coatnet-0", "A CoAtNet adds no position"), ("resnet-18", "A ResNet adds no position")],
)  # fmt: skip
def test_models_without_a_table_say_what_to_look_at(name: str, words: str) -> None:
    with pytest.raises(MiradaError, match=words):
        position_similarity(build(name))


@pytest.mark.parametrize(
    ("name", "shape"),
    [(SMALL, (64, 3, 8, 8)), ("vit-pico/8(stem='convolutional')", (64, 3, 3, 3)), ("resnet-18", (64, 3, 7, 7)),
     ("vit-pico/8(stem='deep')", (24, 3, 2, 2)), ("coatnet-0", None), ("regnety-400mf", None)],
)  # fmt: skip
def test_filters_and_their_components(name: str, shape: tuple[int, ...] | None) -> None:
    made = build(name)
    filters = patch_filters(made)
    if shape is not None:
        assert tuple(filters.shape) == shape
    found = filter_components(made, 5).flatten(1)
    torch.testing.assert_close(found @ found.mT, torch.eye(5), atol=1e-5, rtol=0)
    strengths = (filters.flatten(1) @ found.mT).norm(dim=0)
    assert (strengths[:-1] >= strengths[1:] - 1e-5).all()
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()


def scene() -> torch.Tensor:
    """6 x 8 patches of noise around one thing, and a square of another in the middle."""
    generator = torch.Generator().manual_seed(0)
    patches = 0.01 * torch.randn(1, 6, 8, 16, generator=generator)
    patches[..., 0] += 1
    patches[0, 2:4, 3:6, 0] = -1
    return patches


def test_colours_lie_between_0_and_1_and_are_the_same_each_time() -> None:
    found = patch_pca(scene())
    assert found.shape == (1, 6, 8, 3)
    assert found.amin() == 0
    assert found.amax() == 1
    assert torch.equal(found, patch_pca(scene()))
    torch.testing.assert_close(found, patch_pca(3 * scene() + 1), atol=1e-4, rtol=0)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))[0]
    torch.testing.assert_close(found, patch_pca(scene() @ rotation), atol=1e-3, rtol=0)


def test_the_object_is_what_touches_less_of_the_border() -> None:
    for sign in (1, -1):
        colours, mask = patch_colours(sign * scene())
        expected = torch.zeros(6, 8, dtype=torch.bool)
        expected[2:4, 3:6] = True
        assert torch.equal(mask[0], expected)
        assert (colours[0, ~expected] == 0).all()
        assert colours[0, expected].amax() == 1


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (2, 1, 5, 3), (1, 3, 3, 2)])
def test_features_that_are_all_the_same_have_no_colour_and_no_nan(shape: tuple[int, ...]) -> None:
    assert (patch_pca(torch.ones(shape)) == 0.5).all()
    assert patch_colours(torch.ones(shape)).colours.isfinite().all()
