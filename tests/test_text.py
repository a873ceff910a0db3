"""The text towers: the formula written the slow way, what tokens may see, and which one speaks for the text."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.errors import MiradaError
from mirada.features import Layer
from mirada.text import TextDesign, TextTower
from mirada.tokenizer import TokenizerDesign

SMALL = {"tokenizer": TokenizerDesign(context=6, start=None, end=9), "vocabulary_size": 10, "width": 16, "depth": 2,
         "num_heads": 2, "hidden": 24, "dim": 8}  # fmt: skip


def tower(**options: Any) -> TextTower:
    torch.manual_seed(0)
    made = TextTower(TextDesign(**SMALL | options)).eval()
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


IDS = torch.tensor([[1, 2, 3, 9, 0, 0], [4, 9, 5, 9, 6, 9], [1, 2, 3, 4, 5, 6]])


def slowly(made: TextTower, ids: Tensor) -> Tensor:
    """All tokens after the final norm, one text, head and token at a time."""
    design, rows = made.design, []
    for row in ids:
        x = made.tokens.weight[row] + made.position[: len(row)]
        for block in made.blocks:
            layer: Any = block
            query, key, value = layer.attention.qkv(layer.norm1(x)).chunk(3, -1)
            heads = []
            for q, k, v in zip(*(part.chunk(design.num_heads, -1) for part in (query, key, value)), strict=True):
                out = []
                for here in range(len(row)):
                    seen = here + 1 if design.causal else len(row)
                    weights = (k[:seen] @ q[here] / q.shape[-1] ** 0.5).softmax(0)
                    out.append(weights @ v[:seen])
                heads.append(torch.stack(out))
            x = x + layer.attention.proj(torch.cat(heads, -1))
            hidden = layer.feed_forward[0](layer.norm2(x))
            activations = {"gelu": F.gelu(hidden), "gelu_tanh": F.gelu(hidden, approximate="tanh"),
                           "quickgelu": hidden * torch.sigmoid(1.702 * hidden)}  # fmt: skip
            x = x + layer.feed_forward[2](activations[design.activation])
        rows.append(F.layer_norm(x, x.shape[-1:], made.norm.weight, made.norm.bias, design.epsilon))
    return torch.stack(rows)


@pytest.mark.parametrize("options", [
    {}, {"causal": False, "pooling": "last", "projection": "bias", "bias": True, "activation": "gelu_tanh"},
    {"activation": "gelu", "pooling": "first", "projection": "none", "dim": 16, "epsilon": 0.1},
    {"pooling": "end", "end": 9},
])  # fmt: skip
@torch.no_grad()
def test_the_formula(options: dict[str, Any]) -> None:
    made = tower(**options)
    tokens = slowly(made, IDS)
    where = {"largest": [3, 1, 5], "last": [5, 5, 5], "first": [0, 0, 0], "end": [3, 1, 0]}[made.design.pooling]
    expected = made.projection(tokens[torch.arange(3), where])
    torch.testing.assert_close(made(IDS), expected, rtol=1e-4, atol=1e-5)
    assert made(IDS).shape == (3, made.design.dim)


@torch.no_grad()
def test_what_a_token_may_see() -> None:
    later = IDS.clone()
    later[0, 4:] = 7  # behind the end of the first text
    causal, all_round = tower(), tower(causal=False)
    assert torch.equal(causal(IDS), causal(later))
    assert not torch.allclose(all_round(IDS)[0], all_round(later)[0])  # SigLIP's padding is seen
    assert torch.equal(all_round(IDS)[1:], all_round(later)[1:])


@torch.no_grad()
def test_a_probe_sees_every_layer_and_changes_nothing() -> None:
    for made in (tower(), tower(causal=False)):
        layers: list[Layer] = []
        assert torch.equal(made(IDS, probe=layers.append), made(IDS))
        assert [layer.index for layer in layers] == [0, 1]
        for layer in layers:
            assert layer.query.shape == layer.key.shape == layer.value.shape == (3, 2, 6, 8)
            assert (layer.tokens.shape, layer.grid, layer.prefix) == ((3, 6, 16), (1, 6), 0)
            attention = layer.attention()
            torch.testing.assert_close(attention.sum(-1), torch.ones(3, 2, 6))
            assert bool(attention.triu(1).any()) != made.design.causal
            assert torch.equal(layer.attention([1])[:, 0], attention[:, 1])
            attended = (attention @ layer.value).transpose(1, 2).flatten(2)
            assert attended.shape == (3, 6, 16)


@torch.no_grad()
def test_rows_may_be_shorter_but_not_longer() -> None:
    made = tower()
    torch.testing.assert_close(made(IDS[:1, :4]), made(IDS[:1]))
    with pytest.raises(MiradaError, match="row of 7 tokens is too long: this text tower reads 6"):
        made(torch.zeros(1, 7, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_learns(dtype: torch.dtype) -> None:
    made = tower(projection="bias", bias=True).to(dtype)
    assert made.logit_bias is not None
    (made(IDS).square().sum() * made.logit_scale + made.logit_bias).backward()
    assert [name for name, parameter in made.named_parameters() if parameter.grad is None] == []


def test_how_it_starts() -> None:
    made = TextTower(TextDesign())
    assert made.logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-4)
    assert made.logit_bias is None
    assert (made.logit_scale.shape, made.position.shape) == ((), (77, 512))
    pair = TextTower(TextDesign(**SMALL, bias=True))
    assert pair.logit_bias is not None
    assert pair.logit_scale.exp().item() == pytest.approx(10, rel=1e-4)
    assert (pair.logit_bias.item(), pair.logit_bias.shape) == (-10.0, ())
    assert made.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    block: Any = made.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(512**-0.5, rel=0.05)
    assert block.attention.proj.weight.std().item() == pytest.approx((512 * 24) ** -0.5, rel=0.05)
    assert not block.feed_forward[2].bias.any()
    assert isinstance(made.projection, nn.Linear)
    assert made.projection.bias is None


def test_designs_are_data() -> None:
    for design in (TextDesign(), TextDesign(**SMALL, pooling="end", end=9, projection="bias", bias=True)):
        assert TextDesign.from_dict(json.loads(json.dumps(design.to_dict()))) == design
    with pytest.raises(MiradaError, match="Cannot read the text tower: missing 'dim'"):
        TextDesign.from_dict({key: value for key, value in TextDesign().to_dict().items() if key != "dim"})


@pytest.mark.parametrize(("options", "said"), [
    ({"num_heads": 3}, "width 16 does not split into 3 heads"), ({"pooling": "middle"}, "cannot pool by 'middle'"),
    ({"projection": "none"}, "from width 16 to 8 needs a projection"), ({"end": 9}, "and only then"),
    ({"pooling": "end"}, "needs the id of the end token"),
])  # fmt: skip
def test_designs_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(MiradaError, match=said):
        TextDesign(**SMALL | options)
