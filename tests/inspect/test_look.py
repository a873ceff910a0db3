"""What is seen in an image, against what the model itself says."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import shape_picture

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.features import Layer
from mirada.inspect.look import Look, blocks, look
from mirada.inspect.objects.boxes import box, component
from mirada.inspect.objects.lost import lost
from mirada.inspect.objects.patches import see
from mirada.inspect.rollout import Rollout
from mirada.model import Model
from mirada.preprocess import Preprocess

NAMES = [
    "vit-pico/8(image_size=32)", "vit-pico/8(image_size=32, registers=2)", "coatnet-0",
    "vit-pico/8(image_size=32, pooling='average')", "vit-pico/8(image_size=32, pooling='average', registers=2)",
]  # fmt: skip


def model(name: str, side: int = 32) -> Model:
    torch.manual_seed(0)
    return Model(name, build(name), Preprocess(size=(side, side)))


def picture() -> Image.Image:
    return shape_picture("red", 0, 40)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_layers_say(name: str) -> None:
    """Each row of a layer's attention is taken apart without anything lost, and the output stays, bit by bit."""
    one = model(name).eval()
    images = one.prepare([picture()])
    kept: list[Layer] = []
    with torch.no_grad():
        expected = one.backbone(images, probe=kept.append)
    one.train()
    seen = look(one, picture())
    assert one.training
    assert torch.equal(seen.patches, expected.patches[0])
    assert len(seen.layers) == len(kept)
    rollout = Rollout()
    has_class = "average" not in name and "vit" in name
    assert seen.class_token == has_class
    for layer, found in zip(kept, seen.layers, strict=True):
        attention, prefix = layer.attention()[0], layer.prefix
        height, width = found.grid
        assert (found.grid, found.prefix, found.block) == (layer.grid, prefix, 1)
        between = found.attention.float().flatten(3).flatten(1, 2)
        torch.testing.assert_close(between, attention[:, prefix:, prefix:], atol=1e-3, rtol=1e-3)
        total = found.attention.float().sum((3, 4)) + found.spent
        torch.testing.assert_close(total, torch.ones(len(attention), height, width), atol=2e-3, rtol=0)
        row = attention[:, 0, prefix:] if has_class else attention[:, prefix:, prefix:].mean(1)
        torch.testing.assert_close(found.summary.flatten(1), row)
        rollout(layer)
        assert rollout.flow is not None
        row = rollout.flow[0, 0, prefix:] if has_class else rollout.flow[0, prefix:, prefix:].mean(0)
        torch.testing.assert_close(found.rollout.flatten(), row)


def test_the_distance_of_even_attention() -> None:
    """Against the slow loop: the mean over all pairs of patches, in pixels."""
    one = model("vit-pico/8(image_size=32)")
    with torch.no_grad():
        for block in one.backbone.blocks:  # type: ignore[union-attr]
            block.attention.qkv.weight.zero_()
            block.attention.qkv.bias.zero_()
    layer = look(one, picture()).layers[0]
    places = [(8 * row, 8 * column) for row in range(4) for column in range(4)]
    pairs = [((a - c) ** 2 + (b - d) ** 2) ** 0.5 for a, b in places for c, d in places]
    assert layer.even_distance == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    torch.testing.assert_close(layer.distance, torch.full((2,), layer.even_distance))
    torch.testing.assert_close(layer.entropy, torch.full((2,), layer.even_entropy))


def test_large_grids_are_kept_in_blocks() -> None:
    one = model("vit-pico/4(image_size=68, depth=1)", 68)
    kept: list[Layer] = []
    one.eval().backbone(one.prepare([picture()]), probe=kept.append)
    layer = look(one, picture()).layers[0]
    assert (layer.grid, layer.block) == ((17, 17), 2)
    assert layer.attention.shape == (2, 9, 9, 9, 9)
    assert layer.summary.shape == (2, 17, 17)
    attention = kept[0].attention()[0, :, 1:, 1:].view(2, 17, 17, 17, 17)
    for row, column, y, x in [(0, 0, 0, 0), (3, 8, 8, 1), (8, 8, 8, 8)]:
        part = attention[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        torch.testing.assert_close(
            layer.attention[:, row, column, y, x].float(), part.mean((1, 2, 3, 4)), atol=1e-4, rtol=1e-3
        )


def test_blocks_are_means() -> None:
    maps = torch.arange(15.0).view(1, 3, 5)
    assert blocks(maps, 2).tolist() == [[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]
    assert blocks(maps, 1) is maps


def test_boxes_are_around_the_part_that_the_patch_grew_from() -> None:
    one = model("vit-pico/4(image_size=64, depth=2)", 64)
    found = {object.method: object for object in look(one, shape_picture("red", 3, 64)).objects}
    features = see(one.eval().backbone, one.prepare([shape_picture("red", 3, 64)])).features[0]
    odd = lost(features)
    assert found["LOST"].box == box(component(odd.mask, odd.seed))
    assert found["LOST"].box != box(odd.mask)  # this picture has stray patches


def test_an_opened_picture_is_turned_upright() -> None:
    lying = Image.fromarray(np.arange(20 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 40, 3))
    lying.getexif()[0x0112] = 6
    assert look(model("vit-pico/8(image_size=32)"), lying).size == (20, 40)


def test_a_network_without_attention() -> None:
    seen = look(model("resnet-18"), picture())
    assert seen.layers == ()
    assert seen.colours.shape == (1, 1, 3)
    assert "Attention" not in [found.method for found in seen.objects]
    with pytest.raises(MiradaError, match="has no attention: look at its patches"):
        seen.layer(0)


@pytest.fixture(scope="module")
def seen() -> Look:
    return look(model(NAMES[0]), picture())


def test_layers_are_counted_as_python_counts(seen: Look) -> None:
    assert seen.layer(-1) is seen.layers[3]
    for index in (4, -5):
        with pytest.raises(MiradaError, match=f"There is no layer {index}: there are 4, from 0 to 3, or -1"):
            seen.layer(index)


def test_damaged_weights() -> None:
    one = model(NAMES[0])
    with torch.no_grad():
        next(one.parameters()).fill_(torch.nan)
    with pytest.raises(MiradaError, match="not finite numbers: its weights are damaged"):
        look(one, picture())


def test_words_need_a_text_tower() -> None:
    words: dict[str, Any] = {"a cat": torch.randn(64)}
    with pytest.raises(MiradaError, match="has no text tower"):
        look(model(NAMES[0]), picture(), words)
