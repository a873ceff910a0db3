"""What is particular to CoAtNet, ResNet and RegNet."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mirada.backbones.coatnet import (
    VARIANTS,
    CoAtNet,
    MBConv,
    RelativeAttention,
    TransformerBlock,
    geometric_weights,
)
from mirada.backbones.regnet import REGNET_SIZES, RegNet, stages
from mirada.backbones.resnet import Block, ResNet
from mirada.errors import MiradaError


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def relative_attention(side: int) -> RelativeAttention:
    attention = RelativeAttention(16, 64, side)
    nn.init.normal_(attention.table)
    return attention


def test_relative_bias_is_the_slow_loop() -> None:
    attention = relative_attention(3)
    bias = attention.bias((3, 3))
    for head, row, column, other_row, other_column in product(range(2), *[range(3)] * 4):
        expected = attention.table[head, other_row - row + 2, other_column - column + 2]
        assert bias[head, 3 * row + column, 3 * other_row + other_column] == expected


@pytest.mark.parametrize("grid", [(3, 3), (5, 2), (1, 4), (1, 1)])
def test_relative_bias_of_another_grid_keeps_offset_zero(grid: tuple[int, int]) -> None:
    attention = relative_attention(3)
    bias = attention.bias(grid)
    tokens = grid[0] * grid[1]
    assert bias.shape == (2, tokens, tokens)
    torch.testing.assert_close(bias.diagonal(dim1=1, dim2=2), attention.table[:, 2, 2, None].expand(-1, tokens))


def test_relative_attention_adds_the_bias_before_the_softmax() -> None:
    attention = relative_attention(2)
    x = torch.randn(3, 2, 2, 16)
    output, (query, key, value, _), bias = attention(x)
    scores = query @ key.mT / 32**0.5 + bias
    expected = attention.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2)).unflatten(1, (2, 2))
    torch.testing.assert_close(output, expected)
    assert query.shape == (3, 2, 4, 32)


def test_the_first_transformer_block_of_a_stage_pools_branch_and_shortcut() -> None:
    block = TransformerBlock(16, 32, 2, downsample=True, drop_path=0.0)
    nn.init.normal_(block.attention.table)
    x = torch.randn(2, 4, 4, 16)

    def pool(y: torch.Tensor) -> torch.Tensor:
        return y.unflatten(1, (2, 2)).unflatten(3, (2, 2)).amax((2, 4))

    middle = block.shortcut(pool(x)) + block.attention(pool(block.norm1(x)))[0]
    torch.testing.assert_close(block(x)[0], middle + block.feed_forward(block.norm2(middle)))


def test_the_stride_of_an_mbconv_sits_in_its_first_convolution() -> None:
    block = MBConv(16, 32, downsample=True, drop_path=0.0)
    convolutions = [layer for layer in block.branch if isinstance(layer, nn.Conv2d)]
    assert [layer.stride for layer in convolutions] == [(2, 2), (1, 1), (1, 1)]
    assert [layer.kernel_size for layer in convolutions] == [(1, 1), (3, 3), (1, 1)]
    assert block(torch.randn(1, 16, 5, 7)).shape == (1, 32, 3, 4)


def test_a_coatnet_sees_images_of_any_size() -> None:
    coatnet = CoAtNet((8, 8, 16, 32, 64), (1, 1, 2, 1), image_size=32).eval()
    for height, width in [(1, 1), (31, 33), (64, 32), (100, 7)]:
        features = coatnet(torch.randn(1, 3, height, width), probe=lambda layer: layer.grid)
        halved = [(-(-height // step), -(-width // step)) for step in (16, 32)]
        assert features.trace == (halved[0], halved[0], halved[1])
        assert features.patches.shape == (1, *halved[1], 64)


@pytest.mark.parametrize(("before", "after"), [(13, 5), (13, 27), (27, 13), (1, 5), (5, 1)])
def test_geometric_resampling_is_interpolation_between_growing_steps(before: int, after: int) -> None:
    weights = geometric_weights(before, after)
    table = torch.randn(before)
    middle = before // 2
    old, step, q = [0.0], 0.0, 1.01
    if before > 1:
        while (
            q < 1.5 and sum(q**power for power in range(middle)) <= after // 2
        ):  # the steps just reach the last offset
            q += 1e-5
        for power in range(middle):
            step += q**power
            old = [-step, *old, step]
    new = np.arange(-(after // 2), after // 2 + 1)
    np.testing.assert_allclose((weights @ table).numpy(), np.interp(new, old, table.numpy()), atol=2e-3)
    assert weights[after // 2, middle] == 1


def test_a_network_of_offsets_needs_no_table() -> None:
    attention = RelativeAttention(16, 64, 3, VARIANTS["rmlp_nano_rw"]._replace(inward=False))
    assert attention.table is None
    small, large = attention.bias((2, 3)), attention.bias((4, 5))
    for row, column, other_row, other_column in product(range(2), range(3), range(2), range(3)):
        torch.testing.assert_close(  # it depends on the offset alone, whatever the grid
            small[:, 3 * row + column, 3 * other_row + other_column],
            large[:, 5 * row + column, 5 * other_row + other_column],
        )
    assert not torch.allclose(small[:, 0, 1], small[:, 1, 0])


@pytest.mark.parametrize(
    ("variant", "strides", "pools"),
    [("paper", [2, 1, 1], 0), ("timm", [1, 2, 1], 0), ("nano_rw", [1, 1, 1], 1), ("1_rw", [1, 2, 1], 0)],
)
def test_where_a_variant_halves_the_grid(variant: str, strides: list[int], pools: int) -> None:
    block = MBConv(16, 32, downsample=True, drop_path=0.0, variant=VARIANTS[variant])
    assert [layer.stride[0] for layer in block.branch if isinstance(layer, nn.Conv2d)] == strides
    assert sum(isinstance(layer, nn.AvgPool2d) for layer in block.branch) == pools
    assert block(torch.randn(1, 16, 5, 7)).shape == (1, 32, 3, 4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_variants_see_images_of_any_size(variant: str) -> None:
    coatnet = CoAtNet((8, 8, 32, 32, 64), (1, 1, 2, 1), image_size=64, variant=variant).eval()
    for height, width in [(33, 31), (64, 32), (100, 7)]:
        features = coatnet(torch.randn(1, 3, height, width))
        assert features.patches.shape == (1, -(-height // 32), -(-width // 32), 64)
        pooled = features.patches.mean((1, 2))
        torch.testing.assert_close(features.pooled, coatnet.norm(pooled) if variant == "timm" else pooled)


def test_an_unknown_variant_lists_those_there_are() -> None:
    with pytest.raises(MiradaError, match=r"no variant 'google'.*paper, timm, "):
        CoAtNet((8, 8, 16, 32, 64), (1, 1, 2, 1), variant="google")


def test_given_stages_take_the_place_of_computed_ones() -> None:
    numbers = REGNET_SIZES["400mf"]
    computed = RegNet(**numbers)
    given = RegNet(**numbers, plan=tuple(map(tuple, stages(**numbers))))  # type: ignore[arg-type]
    assert [(name, tensor.shape) for name, tensor in computed.state_dict().items()] == [
        (name, tensor.shape) for name, tensor in given.state_dict().items()
    ]
    short = RegNet(**numbers, plan=((16, 1, 8), (24, 2, 8)), stem_width=8)
    assert (short.dim, short.stem_dim, short.stride, short.num_layers) == (24, 8, 8, 4)
    assert short(torch.randn(2, 3, 32, 48)).patches.shape == (2, 4, 6, 24)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_residual_block_starts_as_its_shortcut(bottleneck: bool) -> None:
    block = Block(64, 64, 1, bottleneck, 0.0)
    x = torch.randn(2, 64, 5, 5)
    assert torch.equal(block(x), F.relu(x))
    halving = Block(64, 128, 2, bottleneck, 0.0)
    assert torch.equal(halving(x), F.relu(halving.shortcut(x)))


def test_the_stride_of_a_bottleneck_sits_in_its_3x3() -> None:
    convolutions = [layer for layer in Block(64, 128, 2, True, 0.0).branch.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.kernel_size[0], layer.stride[0]) for layer in convolutions] == [(1, 1), (3, 2), (1, 1)]


def test_small_images_keep_their_pixels_in_the_stem() -> None:
    resnet = ResNet((1, 1, 1, 1), False, small_images=True)
    assert resnet.stride == 8
    assert resnet.embed(torch.randn(2, 3, 32, 32)).shape == (2, 32, 32, 64)
    assert resnet(torch.randn(2, 3, 32, 32)).patches.shape == (2, 4, 4, 512)


@pytest.mark.parametrize(
    ("size", "rounding", "widths", "depths"),
    [
        ("400mf", "generous", [48, 104, 208, 440], [1, 3, 6, 6]),
        ("800mf", "generous", [64, 144, 320, 784], [1, 3, 8, 2]),  # torchvision
        ("800mf", "nearest", [64, 128, 320, 768], [1, 3, 8, 2]),  # arXiv:2003.13678, figure 14
        ("8gf", "nearest", [168, 448, 896, 2016], [2, 4, 10, 1]),
        ("128gf", "generous", [528, 1056, 2904, 7392], [2, 7, 17, 1]),
        ("10b", "generous", [2020, 4040, 11110, 28280], [2, 7, 17, 1]),  # arXiv:2202.08360
    ],
)
def test_regnet_stages(size: str, rounding: str, widths: list[int], depths: list[int]) -> None:
    plan = stages(**REGNET_SIZES[size], rounding=rounding)
    assert [stage.width for stage in plan] == widths
    assert [stage.depth for stage in plan] == depths
    assert all(stage.width % stage.group_width == 0 for stage in plan)
