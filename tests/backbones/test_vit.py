"""The options of the ViT, each against its formula written the slow way."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mirada.backbones import build, canonical
from mirada.backbones.vit import (
    Attention,
    AttentionPooling,
    Block,
    DropPath,
    LayerScale,
    QuickGELU,
    SequencePooling,
    SwiGLU,
    ViT,
    rotary_angles,
    rotate,
    sincos_positions,
)
from mirada.errors import MiradaError

POOLING = ["class", "average", "sequence", "attention"]
POSITIONS = ["learned", "sincos", "rotary", "none"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(**options: Any) -> ViT:
    """Width 16, two blocks of two heads, 4x4 patches of 4 pixels; weights large enough that everything matters."""
    vit = ViT(**{"dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "image_size": 16} | options).eval()
    for parameter in vit.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return vit


def images(batch: int = 2, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(batch, 3, height, width)


@pytest.mark.parametrize(
    ("pooling", "positions", "activation", "stem"),
    list(product(POOLING, POSITIONS, ["gelu", "quickgelu", "swiglu"], ["patch", "convolutional", "deep"])),
)
def test_every_combination(pooling: str, positions: str, activation: str, stem: str) -> None:
    rest: dict[str, Any] = {"registers": 2, "layer_scale": 0.1, "pre_norm": True} if stem == "patch" else {}
    vit = tiny(pooling=pooling, positions=positions, activation=activation, stem=stem, **rest)
    for height, width in [(16, 16), (8, 24)]:
        x = images(2, height, width)
        features = vit(x)
        prefix = (pooling == "class") + rest.get("registers", 0)
        assert features.pooled.shape == (2, 16)
        assert features.patches.shape == (2, height // 4, width // 4, 16)
        assert features.prefix.shape == (2, prefix, 16)
        probed = vit(x, probe=lambda layer: layer.attention().sum(-1))
        assert torch.equal(probed.pooled, features.pooled)
        torch.testing.assert_close(probed.trace[1], torch.ones(2, 2, prefix + height * width // 16))
    (features.pooled.square().sum() + features.patches.square().sum()).backward()
    assert [name for name, parameter in vit.named_parameters() if parameter.grad is None] == []


def test_what_pooled_is() -> None:
    x = images()
    features = tiny(pooling="class", registers=2)(x)
    assert torch.equal(features.pooled, features.prefix[:, 0])
    features = tiny(pooling="average", registers=2)(x)
    torch.testing.assert_close(features.pooled, features.patches.mean((1, 2)))
    vit = tiny(pooling="sequence", registers=2)
    features = vit(x)
    assert torch.equal(features.pooled, vit.pool(features.patches.flatten(1, 2)))
    vit = tiny(pooling="attention", registers=2)
    features = vit(x)
    assert torch.equal(features.pooled, vit.pool(torch.cat([features.prefix, features.patches.flatten(1, 2)], 1)))


@pytest.mark.parametrize("pooling", ["class", "average"])
def test_what_only_patches_need_is_left_out(pooling: str) -> None:
    model, batch = tiny(pooling=pooling, registers=1), images(3)
    with FlopCounterMode(display=False) as whole:
        tokens = model(batch).patches.shape[1:3].numel() + model.prefix_tokens
    with FlopCounterMode(display=False) as alone:
        model.pooled(batch)
    left_out = whole.get_total_flops() - alone.get_total_flops()
    weights = [model.blocks[-1].attention.proj.weight, *model.blocks[-1].feed_forward.parameters()]
    products = 2 * len(batch) * (tokens - 1) * sum(weight.numel() for weight in weights if weight.ndim == 2)
    assert left_out >= products if pooling == "class" else left_out == 0


def test_attention_is_the_slow_loop() -> None:
    dim, heads, tokens = 8, 2, 5
    attention = Attention(dim, heads)
    x = torch.randn(1, tokens, dim)
    output, (query, key, value, _) = attention(x, None, 0)
    projected = attention.qkv(x)[0]
    width = dim // heads
    expected = torch.zeros(tokens, dim)
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        q, k, v = (projected[:, part * dim : (part + 1) * dim][:, columns] for part in range(3))
        for part, whole in zip((q, k, v), (query, key, value), strict=True):
            assert torch.equal(part, whole[0, head])
        for i in range(tokens):
            scores = [math.exp(sum((q[i] * k[j]).tolist()) / math.sqrt(width)) for j in range(tokens)]
            for j in range(tokens):
                expected[i, columns] += scores[j] / sum(scores) * v[j]
    torch.testing.assert_close(output[0], attention.proj(expected))


def test_block_is_two_residuals() -> None:
    block = Block(8, 2, 12, "gelu", 1e-6, 0.5, 0.0)
    x = torch.randn(2, 5, 8)
    middle = x + 0.5 * block.attention(block.norm1(x), None, 0)[0]
    first, _, second = block.feed_forward.children()
    expected = middle + 0.5 * second(F.gelu(first(block.norm2(middle))))
    torch.testing.assert_close(block(x)[0], expected)


def test_activations() -> None:
    x = torch.randn(3, 8)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    gated = SwiGLU(8, 6)
    gate, value = gated.gate_and_value(x)[:, :6], gated.gate_and_value(x)[:, 6:]
    torch.testing.assert_close(gated(x), gated.out(gate / (1 + torch.exp(-gate)) * value))


def test_sincos_is_the_slow_loop() -> None:
    dim, (height, width) = 8, (2, 3)
    table = sincos_positions(dim, (height, width), CPU)
    assert table.shape == (1, height * width, dim)
    for row in range(height):
        for column in range(width):
            expected = []
            for place, function in product((column, row), (math.sin, math.cos)):
                expected += [function(place / 10000 ** (i / (dim // 4))) for i in range(dim // 4)]
            torch.testing.assert_close(table[0, row * width + column], torch.tensor(expected))


def test_rotary_scores_depend_on_the_offset_only() -> None:
    height, width, prefix, head_dim = 3, 4, 2, 8
    angles = rotary_angles(head_dim, (height, width), CPU)
    assert angles.shape == (height * width, head_dim)
    same = torch.randn(2, head_dim)
    query, key = (rotate(vector.expand(1, 1, prefix + height * width, -1), angles, prefix)[0, 0] for vector in same)
    assert torch.equal(query[:prefix], same[:1].expand(prefix, -1))
    torch.testing.assert_close(query.norm(dim=-1), same[0].norm().expand(prefix + height * width))
    scores = (query[prefix:] @ key[prefix:].T).unflatten(0, (height, width)).unflatten(2, (height, width))
    by_offset: dict[tuple[int, int], list[float]] = {}
    for row, column, other_row, other_column in product(range(height), range(width), range(height), range(width)):
        score = scores[row, column, other_row, other_column].item()
        by_offset.setdefault((other_row - row, other_column - column), []).append(score)
    for found in by_offset.values():
        assert max(found) - min(found) < 1e-5
    assert len({round(found[0], 3) for found in by_offset.values()}) > 20


def test_rotary_positions_are_relative_to_the_side() -> None:
    coarse, fine = rotary_angles(8, (1, 2), CPU), rotary_angles(8, (1, 4), CPU)
    torch.testing.assert_close(coarse, fine.unflatten(0, (2, 2)).mean(1))


def test_rotate_turns_pairs() -> None:
    angle = torch.tensor([[0.3, 1.1]]).repeat(1, 2)
    x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    turned = rotate(x, angle, 0)[0, 0, 0]
    for i in range(2):
        turn = complex(math.cos(angle[0, i]), math.sin(angle[0, i]))
        expected = complex(x[0, 0, 0, i], x[0, 0, 0, i + 2]) * turn
        assert complex(turned[i], turned[i + 2]) == pytest.approx(expected, rel=1e-5)


def test_sequence_pooling_is_a_weighted_mean() -> None:
    pool = SequencePooling(8)
    tokens = torch.randn(2, 5, 8)
    weights = pool.score(tokens).exp()
    torch.testing.assert_close(pool(tokens), (weights * tokens).sum(1) / weights.sum(1))


def test_attention_pooling_is_torchs_attention_of_one_query() -> None:
    pool = AttentionPooling(8, 2, 12, "gelu", 1e-6)
    tokens = torch.randn(2, 5, 8)
    peer = nn.MultiheadAttention(8, 2, batch_first=True)
    peer.load_state_dict({
        "in_proj_weight": torch.cat([pool.project_query.weight, pool.key_value.weight]),
        "in_proj_bias": torch.cat([pool.project_query.bias, pool.key_value.bias]),
        "out_proj.weight": pool.proj.weight, "out_proj.bias": pool.proj.bias,
    })  # fmt: skip
    attended = peer(pool.query.expand(2, -1, -1), tokens, tokens)[0][:, 0]
    torch.testing.assert_close(pool(tokens), attended + pool.feed_forward(pool.norm(attended)))


def test_layer_scale_and_its_absence() -> None:
    torch.testing.assert_close(LayerScale(4, 0.1)(torch.ones(2, 4)), torch.full((2, 4), 0.1))
    assert not any("scale" in name for name, _ in tiny().named_parameters())
    gains = [p for name, p in ViT(16, 2, 2, 4, layer_scale=1e-5).named_parameters() if name.endswith("gain")]
    assert len(gains) == 4
    assert all(gain.eq(1e-5).all() for gain in gains)


def test_pre_norm_comes_before_the_first_block() -> None:
    vit = tiny(pre_norm=True, depth=0)
    patches = vit.embed(images())
    expected = vit.norm(vit.pre_norm(patches.flatten(1, 2) + vit.position))
    torch.testing.assert_close(vit.encode(patches).patches.flatten(1, 2), expected)


def test_registers_have_no_position_and_the_class_token_has() -> None:
    vit = tiny(registers=2, depth=0)
    assert vit.prefix is not None
    assert vit.class_position is not None
    expected = torch.cat([vit.prefix[:, :1] + vit.class_position, vit.prefix[:, 1:]], 1)
    torch.testing.assert_close(vit(images(1)).prefix, vit.norm(expected))


@pytest.mark.parametrize("stem", ["convolutional", "deep"])
def test_stem_width(stem: str) -> None:
    def first(**options: Any) -> int:
        kernels = tiny(stem=stem, patch_size=4, image_size=32, **options).stem
        return next(layer for layer in kernels.modules() if isinstance(layer, torch.nn.Conv2d)).out_channels

    assert (first(), first(stem_width=24)) == (64, 24)


def test_convolutional_stem() -> None:
    vit = tiny(stem="convolutional", patch_size=8, image_size=32)
    kinds = [type(layer) for layer in vit.stem.children()]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.MaxPool2d] * 3
    assert vit.embed(images(2, 32, 48)).shape == (2, 4, 6, 16)


def test_drop_path_keeps_the_expectation_and_drops_whole_samples() -> None:
    drop = DropPath(0.3)
    x = torch.ones(20_000, 2, 3)
    dropped = drop(x)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert set(dropped.flatten(1).mean(1).mul(0.7).round(decimals=4).tolist()) == {0.0, 1.0}
    assert torch.equal(dropped.amin((1, 2)), dropped.amax((1, 2)))
    assert torch.equal(drop.eval()(x), x)
    assert drop.train()(x.bfloat16()).dtype == torch.bfloat16


def test_drop_path_grows_with_depth() -> None:
    vit = tiny(depth=5, drop_path=0.4)
    rates = [block.get_submodule("drop_path").rate for block in vit.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    x = images()
    assert torch.equal(vit(x).pooled, vit(x).pooled)
    assert not torch.equal(vit.train()(x).pooled, vit(x).pooled)


def test_the_position_table_is_itself_on_its_own_grid() -> None:
    vit = tiny()
    assert vit.position_table((4, 4)) is vit.position


def test_interpolated_positions_are_smooth() -> None:
    vit = tiny(image_size=32)  # an 8x8 table
    assert vit.position is not None
    y, x = torch.meshgrid((torch.arange(8) + 0.5) / 8, (torch.arange(8) + 0.5) / 8, indexing="ij")
    channels = [torch.full_like(x, 0.7), x, y, *[torch.sin(3 * x + y)] * 13]
    vit.position.data = torch.stack(channels, -1).flatten(0, 1)[None]
    table = vit.position_table((16, 12))
    assert table is not None
    table = table.unflatten(1, (16, 12))[0]
    y, x = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(12) + 0.5) / 12, indexing="ij")
    expected = torch.stack([torch.full_like(x, 0.7), x, y, torch.sin(3 * x + y)], -1)
    torch.testing.assert_close(table[3:-3, 3:-3, :4], expected[3:-3, 3:-3], rtol=0, atol=0.01)
    torch.testing.assert_close(table[..., 0], expected[..., 0])
    assert (table[:, 1:, 1] > table[:, :-1, 1]).all()
    assert (table[1:, :, 2] > table[:-1, :, 2]).all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_keep_of_everything_permutes_the_patches(positions: str) -> None:
    vit = tiny(positions=positions, registers=1)
    patches = vit.embed(images())
    whole = vit.encode(patches)
    in_order = vit.encode(patches, keep=torch.arange(16).expand(2, -1))
    for part, expected in zip(in_order[:3], whole[:3], strict=True):
        torch.testing.assert_close(part.flatten(), expected.flatten())
    order = torch.stack([torch.randperm(16), torch.randperm(16)])
    mixed = vit.encode(patches, keep=order)
    torch.testing.assert_close(mixed.pooled, whole.pooled, rtol=1e-4, atol=1e-5)
    expected = whole.patches.flatten(1, 2).gather(1, order[:, :, None].expand(-1, -1, 16))
    torch.testing.assert_close(mixed.patches[:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_keep_is_a_gather_before_the_first_block(positions: str) -> None:
    vit = tiny(positions=positions, pooling="average")
    patches = vit.embed(images())
    keep = torch.tensor([[7, 2, 11], [0, 15, 3]])
    features = vit.encode(patches, keep=keep, probe=lambda layer: (layer.grid, layer.tokens.shape))
    assert features.trace == (((1, 3), (2, 3, 16)),) * 2
    for sample in range(2):
        x = patches[sample : sample + 1].flatten(1, 2)
        table = vit.position_table((4, 4))
        x = (x if table is None else x + table)[:, keep[sample]]
        angles = rotary_angles(8, (4, 4), CPU)[keep[sample]] if positions == "rotary" else None
        for block in vit.blocks:
            x, _ = block(x, angles, 0)
        torch.testing.assert_close(features.patches[sample, 0], vit.norm(x)[0], rtol=1e-4, atol=1e-5)


def test_the_residual_stream_stays_float32_under_autocast() -> None:
    for positions in POSITIONS:
        with torch.autocast("cpu", torch.bfloat16):
            features = tiny(positions=positions)(images(), probe=lambda layer: layer.tokens.dtype)
        assert features.trace == (torch.float32,) * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "does not split into 3 heads"),
        ({"dim": 18, "positions": "sincos"}, "divides by 4"),
        ({"dim": 12, "positions": "rotary"}, "divides by 4"),
        ({"pooling": "max"}, r"no pooling 'max': choose one of class, average, sequence, attention\."),
        ({"positions": "relative"}, "no positions 'relative'"),
        ({"activation": "relu"}, "no activation 'relu'"),
        ({"stem": "resnet"}, "no stem 'resnet'"),
        ({"stem": "deep", "patch_size": 4, "stem_width": 0}, "cannot have 0 channels"),
        ({"stem": "convolutional", "patch_size": 14}, "2, 4, 8 or 16, not 14"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("size", "usable"), [((18, 18), "size of 16,"), ((16, 23), "size of 16x24,"), ((1, 1), "size of 4,")]
)
def test_image_sizes_that_do_not_divide_name_the_nearest(size: tuple[int, int], usable: str) -> None:
    with pytest.raises(MiradaError, match=usable):
        tiny()(images(1, *size))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit-tu/16", "did you mean 'vit-ti/16'"),
        ("vitt-s", "did you mean 'vit-s'"),
        ("resnet18", "did you mean 'resnet-18'"),
        ("banana", "lists all names"),
        ("vit-ti/16(registrs=4)", "did you mean 'registers'"),
        ("resnet-18(zzz=4)", "its options are"),
        ("vit-ti/x", "must be a whole number, such as vit-ti/16"),
        ("vit-ti/0", "must be a whole number"),
        ("vit-ti/-4", "must be a whole number"),
        ("vit-ti/", "must be a whole number"),
        ("resnet-18/16", "has no patches: write it without '/16'"),
        ("coatnet-0(widths=(8, 8, 8, 8, 8))", "must divide by 32"),
        ("regnety-400mf(rounding='up')", "choose one of generous, nearest"),
        ("vit-ti/16(num_heads=0)", "do not fit together"),
        ("resnet-18(depths=())", "do not fit together"),
    ],
)
def test_names_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        build(name)


def test_names_compose() -> None:
    with torch.device("meta"):
        vit = build("vit-pico/8(registers=4, pooling='average')", image_size=32, no_such_default=1)
    assert isinstance(vit, ViT)
    assert (vit.dim, vit.stride, vit.prefix_tokens, vit.grid) == (64, 8, 4, (4, 4))
    assert canonical("vit-pico(registers=4)") == "vit-pico/16(registers=4)"
    assert canonical(" resnet-18 ") == "resnet-18"


def test_whitening_makes_patches_uncorrelated_and_of_unit_variance() -> None:
    vit = tiny(stem="deep", patch_size=4, image_size=32)
    smooth = torch.nn.functional.interpolate(torch.randn(64, 3, 8, 8), (32, 32), mode="bilinear")
    before = vit(smooth).pooled
    vit.prepare(smooth)
    assert not torch.equal(vit(smooth).pooled, before)
    filters = vit.stem.get_buffer("whitening")[:12]
    answers = torch.nn.functional.conv2d(smooth, filters, stride=2).transpose(0, 1).flatten(1)
    moments = answers @ answers.T / answers.shape[1]
    variance = moments.diag()
    assert variance.max() <= 1.001
    assert variance[:3].min() > 0.95  # the strongest components; weak ones are damped by the epsilon
    assert (moments - torch.diag(variance)).abs().max() < 1e-3
    assert torch.equal(vit.stem.get_buffer("whitening")[12:], -filters)


def test_a_deep_stem_keeps_its_whitening_when_saved() -> None:
    first, second = (tiny(stem="deep", patch_size=4, image_size=32) for _ in range(2))
    first.prepare(torch.randn(8, 3, 32, 32))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.stem.get_buffer("whitening"), first.stem.get_buffer("whitening"))
