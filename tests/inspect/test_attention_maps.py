"""Attention, its distance and its entropy, on every family: against the explicit softmax and slow loops."""

import math
import sys
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mirada
from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.features import Backbone, Layer
from mirada.inspect.attention import class_attention, has_class_token, pieces, token_attention
from mirada.inspect.distance import attention_distance, attention_distances, layer_distance
from mirada.inspect.entropy import attention_entropies, attention_entropy
from mirada.inspect.objects.patches import see
from mirada.inspect.rollout import Rollout, attention_map

ATTENDING = [
    "vit-pico/8(depth=2, image_size=32)", "vit-pico/8(depth=2, image_size=32, pooling='average')",
    "vit-pico/8(depth=2, image_size=32, registers=3)",
    "vit-pico/8(depth=2, image_size=32, positions='rotary', pooling='attention')", "coatnet-0",
]  # fmt: skip
NOT_ATTENDING = ["resnet-18", "regnety-400mf"]


def backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    made = build(name).eval()
    for parameter in made.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)  # far from uniform attention
    return made


def images(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def layers(made: Backbone, pixels: Tensor) -> list[Layer]:
    kept: list[Layer] = []
    with torch.no_grad():
        made(pixels, probe=kept.append)
    return kept


def explicit(layer: Layer) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias), written out."""
    scores = torch.einsum("bhqd,bhkd->bhqk", layer.query.double(), layer.key.double()) / math.sqrt(
        layer.query.shape[-1]
    )
    if layer.bias is not None:
        scores = scores + layer.bias.double()
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return (powers / powers.sum(-1, keepdim=True)).float()


@pytest.mark.parametrize("name", ATTENDING)
def test_rows_of_attention_are_those_of_the_explicit_softmax(name: str) -> None:
    for layer in layers(backbone(name), images()):
        whole = explicit(layer)
        torch.testing.assert_close(layer.attention(), whole)
        torch.testing.assert_close(layer.attention(heads=[-1], queries=[0, -1]), whole[:, -1:, [0, -1]])
        torch.testing.assert_close(layer.attended, whole @ layer.value, atol=2e-5, rtol=1e-4)
        prefix, (height, width) = layer.prefix, layer.grid
        row = whole[:, :, 0, prefix:] if prefix else whole.mean(2)
        torch.testing.assert_close(class_attention(layer), row.unflatten(-1, (height, width)))
        found = token_attention(layer, [prefix], heads=[0])
        torch.testing.assert_close(found[:, 0, 0].flatten(1), whole[:, 0, prefix, prefix:])


@pytest.mark.parametrize("name", ATTENDING)
def test_distance_is_that_of_a_slow_loop(name: str) -> None:
    made, pixels = backbone(name), images(32, 64) if "coatnet" in name else images()
    found = attention_distances(made, pixels, batch=1)
    for layer, distances in zip(layers(made, pixels), found, strict=True):
        stride = pixels.shape[-2] / layer.grid[0]
        whole = explicit(layer)[..., layer.prefix :, layer.prefix :]
        places = list(product(range(layer.grid[0]), range(layer.grid[1])))
        expected = torch.zeros(whole.shape[:2])
        for b, h in product(range(whole.shape[0]), range(whole.shape[1])):
            for i, (y, x) in enumerate(places):
                row = whole[b, h, i] / whole[b, h, i].sum()
                far = [stride * math.hypot(y - v, x - u) for v, u in places]
                expected[b, h] += sum(float(a) * d for a, d in zip(row, far, strict=True)) / len(places)
        torch.testing.assert_close(distances, expected)
        torch.testing.assert_close(attention_distance(layer.attention(), layer.grid, stride, layer.prefix), expected)


def test_known_distances() -> None:
    """All on itself is 0; evenly between two patches, half of what is between them."""
    alone = torch.eye(9)[None, None]
    assert attention_distance(alone, (3, 3), 16, prefix=0).item() == 0
    assert attention_distance(torch.full((1, 1, 2, 2), 0.5), (1, 2), 16, prefix=0).item() == 8
    token = torch.full((1, 1, 3, 3), 1 / 3)  # what goes to the class token has no place
    assert attention_distance(token, (1, 2), 16, prefix=1).item() == 8


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.sampled_from([1.0, 30.0]))
def test_distance_and_entropy_stay_in_their_ranges(seed: int, h: int, w: int, prefix: int, sharpness: float) -> None:
    count = prefix + h * w
    scores = torch.randn(2, 3, count, count, generator=torch.Generator().manual_seed(seed))
    attention = (sharpness * scores).softmax(-1)
    distance = attention_distance(attention, (h, w), 4, prefix)
    assert distance.shape == (2, 3)
    assert (distance >= 0).all()
    assert (distance <= 4 * math.hypot(h - 1, w - 1) + 1e-4).all()
    entropy = attention_entropy(attention)
    assert (entropy >= 0).all()
    assert (entropy <= math.log(count) + 1e-5).all()


def test_entropies_known_and_of_layers() -> None:
    assert attention_entropy(torch.eye(5)[None, None]).item() == 0
    torch.testing.assert_close(attention_entropy(torch.full((1, 1, 4, 8), 1 / 8)).item(), math.log(8))
    made = backbone(ATTENDING[2])
    for layer, entropy in zip(layers(made, images()), attention_entropies(made, images(), batch=1), strict=True):
        whole = explicit(layer)
        torch.testing.assert_close(entropy, -(whole * whole.log()).sum(-1).mean(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*ATTENDING, *NOT_ATTENDING])
def test_looking_changes_no_bit(name: str) -> None:
    made, pixels = backbone(name), images()
    with torch.no_grad():
        before = made(pixels)
        after = made(pixels, probe=lambda layer: layer.attention([0]).sum())
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))


@pytest.mark.parametrize("name", NOT_ATTENDING)
@pytest.mark.parametrize("function", [attention_distances, attention_entropies])
def test_without_attention_it_says_what_to_look_at(name: str, function: object) -> None:
    with pytest.raises(MiradaError, match=r"has no attention: look at its receptive_field"):
        function(backbone(name), images())  # type: ignore[operator]


def test_a_head_or_token_that_there_is_not() -> None:
    (layer, _) = layers(backbone(ATTENDING[0]), images())
    with pytest.raises(MiradaError, match="There is no head 2: there are 2, from 0 to 1"):
        layer.attention([2])
    with pytest.raises(MiradaError, match="There is no token -18: there are 17"):
        token_attention(layer, [-18])
    with pytest.raises(MiradaError, match="no images"):
        attention_distances(backbone(ATTENDING[0]), torch.zeros(0, 3, 32, 32))


def test_a_matrix_that_no_memory_holds_is_refused_and_a_row_of_it_is_not() -> None:
    long = torch.randn(1, 1, 1 << 15, 4)
    layer = Layer(0, long[:, 0], long, long, long, (128, 256), 0)
    with pytest.raises(MiradaError, match=r"32,768 x 32,768 tokens takes 4 GB for each head"):
        layer.attention()
    assert token_attention(layer, [5]).shape == (1, 1, 1, 128, 256)


def test_the_functions_are_there_from_the_package() -> None:
    assert mirada.inspect.attention_distance is attention_distance
    assert all(callable(getattr(mirada.inspect, name)) for name in mirada.inspect.__all__)


def random_layer(batch: int, heads: int, grid: tuple[int, int], prefix: int, bias: bool) -> Layer:
    generator = torch.Generator().manual_seed(0)
    count = prefix + grid[0] * grid[1]
    query, key, value = 3 * torch.randn(3, batch, heads, count, 4, generator=generator)
    added = torch.randn(heads, count, count, generator=generator) if bias else None
    return Layer(0, value.transpose(1, 2).flatten(2), query, key, value, grid, prefix, added)


@pytest.mark.parametrize("room", [1, 7, 14, 40, 100, 1000, 10**6])
@pytest.mark.parametrize("bias", [False, True])
def test_pieces_are_all_of_the_attention_once(room: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = random_layer(3, 2, (2, 3), 1, bias)
    whole = explicit(layer)
    expected = attention_distance(whole, (2, 3), 5, 1), attention_entropy(whole)
    monkeypatch.setattr(sys.modules[pieces.__module__], "AT_ONCE", room)
    found = torch.zeros_like(whole)
    for piece in pieces(layer):
        assert piece.attention.numel() <= max(room, 7)
        found[piece.images, piece.heads, piece.queries] += piece.attention
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(layer_distance(layer, 5), expected[0])
    look = Rollout()
    look(layer)
    torch.testing.assert_close(look.flow, (whole.mean(1) + torch.eye(7)) / 2)
    rows = whole[:, :, 1:, 1:].mean(2)
    torch.testing.assert_close(class_attention(layer, class_token=False).flatten(2), rows)
    torch.testing.assert_close(class_attention(layer, [-1], class_token=False).flatten(2), rows[:, -1:])


@pytest.mark.parametrize(
    ("options", "token"),
    [("", True), (", registers=2", True), (", pooling='average'", False), (", pooling='average', registers=2", False),
     (", pooling='attention', registers=1", False)],
)  # fmt: skip
def test_registers_are_no_class_token(options: str, token: bool) -> None:
    made = backbone(f"vit-pico/8(depth=1, image_size=32{options})")
    assert has_class_token(made) is token
    (layer,) = layers(made, images())
    whole = explicit(layer)[..., layer.prefix :]
    expected = whole[:, :, 0] if token else whole[:, :, layer.prefix :].mean(2)
    torch.testing.assert_close(class_attention(layer, class_token=token).flatten(2), expected)
    seen = see(made, images()).attention
    torch.testing.assert_close(seen, expected.unflatten(2, (4, 4)))


def test_pixels_that_no_patch_sees_stretch_no_distance() -> None:
    """As SigLIP's 384 pixels in patches of 14: distances are those of the patches that there are."""
    made = backbone("vit-pico/8(depth=1, image_size=35)")
    (layer,) = layers(made, images(35, 35))
    (found,) = attention_distances(made, images(35, 35))
    torch.testing.assert_close(found, attention_distance(layer.attention(), (4, 4), 8, 1))


def test_a_rollout_that_does_not_fit_is_refused() -> None:
    query = torch.zeros(1, 1, 1, 1).expand(20, 1, 4097, 1)
    layer = Layer(0, query[:, 0], query, query, query, (64, 64), 1)
    with pytest.raises(MiradaError, match=r"rollout of 20 images with 4,097 tokens each takes 1.3 GB: give fewer"):
        Rollout()(layer)


@pytest.mark.parametrize("function", [attention_distances, attention_entropies, attention_map])
def test_images_smaller_than_a_patch(function: object) -> None:
    with pytest.raises(MiradaError, match="do not divide into patches of 8: use an image size of 8"):
        function(backbone(ATTENDING[0]), images(4, 4))  # type: ignore[operator]
