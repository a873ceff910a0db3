import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mirada.backbones.coatnet import CoAtNet
from mirada.backbones.vit import ViT
from mirada.errors import MiradaError
from mirada.features import Backbone, Features, Layer, Probe
from mirada.inspect.rollout import Rollout, attention_map, rollout

IMAGES = torch.rand(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))


def tiny_vit(**options: object) -> ViT:
    torch.manual_seed(0)
    model = ViT(16, 3, 2, 4, image_size=16, **options)  # type: ignore[arg-type]
    for block in model.blocks:
        nn.init.normal_(block.attention.qkv.weight)  # far from uniform attention
    return model


def random_attentions(seed: int, layers: int, heads: int, tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, heads, tokens, tokens)
    return [(3 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1) for _ in range(layers)]


def slow_rollout(attentions: list[Tensor]) -> Tensor:
    """Equation 1 of the paper, one number at a time."""
    batch, heads, tokens, _ = attentions[0].shape
    flow = torch.eye(tokens, dtype=attentions[0].dtype).repeat(batch, 1, 1)
    for attention in attentions:
        before, flow = flow, torch.zeros_like(flow)
        for b in range(batch):
            for i in range(tokens):
                for j in range(tokens):
                    for k in range(tokens):
                        mean = sum(attention[b, h, i, k] for h in range(heads)) / heads
                        flow[b, i, j] += (mean + (i == k)) / 2 * before[b, k, j]
    return flow


def test_equals_the_slow_loop() -> None:
    attentions = random_attentions(seed=1, layers=3, heads=2, tokens=4)
    torch.testing.assert_close(rollout(attentions), slow_rollout(attentions))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4), st.integers(1, 9))
def test_rows_sum_to_one_and_are_never_negative(seed: int, layers: int, heads: int, tokens: int) -> None:
    flow = rollout(random_attentions(seed, layers, heads, tokens))
    assert (flow >= 0).all()
    torch.testing.assert_close(flow.sum(-1), torch.ones(2, tokens, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_renaming_tokens_renames_the_rollout(seed: int, tokens: int) -> None:
    attentions = random_attentions(seed, 3, 2, tokens)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    renamed = rollout([attention[..., order, :][..., order] for attention in attentions])
    torch.testing.assert_close(renamed, rollout(attentions)[:, order][..., order])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
def test_depth_composes(seed: int, first: int, second: int) -> None:
    attentions = random_attentions(seed, first + second, 2, 5)
    torch.testing.assert_close(rollout(attentions), rollout(attentions[first:]) @ rollout(attentions[:first]))


def test_attention_to_itself_moves_nothing_and_uniform_attention_stays_uniform() -> None:
    still = torch.eye(5).expand(1, 2, 5, 5)
    torch.testing.assert_close(rollout([still] * 4), torch.eye(5)[None])
    uniform = torch.full((1, 2, 5, 5), 0.2)
    torch.testing.assert_close(rollout([uniform] * 2), torch.full((1, 5, 5), 0.15) + 0.25 * torch.eye(5))


def test_a_generator_is_enough_and_nothing_is_an_error() -> None:
    attentions = random_attentions(seed=2, layers=3, heads=2, tokens=4)
    torch.testing.assert_close(rollout(attention for attention in attentions), rollout(attentions))
    with pytest.raises(MiradaError, match="at least one layer"):
        rollout([])


def test_the_probe_gives_the_same_without_keeping_a_graph() -> None:
    model, look = tiny_vit(registers=2), Rollout()
    kept = model(IMAGES, probe=lambda layer: layer.attention()).trace
    for _ in range(2):  # a second pass starts again
        model(IMAGES, probe=look)
        assert look.flow is not None
        torch.testing.assert_close(look.flow, rollout(kept).detach())
    assert not look.flow.requires_grad
    assert (look.grid, look.prefix) == ((6, 4), 3)


@pytest.mark.parametrize("registers", [0, 2])
def test_map_of_a_class_token_is_its_row_over_the_patches(registers: int) -> None:
    model = tiny_vit(registers=registers)
    flow = rollout(model(IMAGES, probe=lambda layer: layer.attention()).trace).detach()
    row = flow[:, 0, 1 + registers :]
    expected = torch.stack([(image - image.min()) / (image.max() - image.min()) for image in row])
    found = attention_map(model, IMAGES)
    assert found is not None
    torch.testing.assert_close(found, expected.reshape(2, 6, 4))


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("pooling", ["average", "sequence", "attention"])
def test_map_without_a_class_token_is_the_mean_row_of_the_patches(pooling: str, registers: int) -> None:
    model = tiny_vit(pooling=pooling, registers=registers)
    flow = rollout(model(IMAGES, probe=lambda layer: layer.attention()).trace).detach()
    row = flow[:, registers:, registers:].mean(1)
    expected = torch.stack([(image - image.min()) / (image.max() - image.min()) for image in row])
    found = attention_map(model, IMAGES)
    assert found is not None
    torch.testing.assert_close(found, expected.reshape(2, 6, 4))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["class", "average"]))
def test_every_map_lies_between_0_and_1(rows: int, columns: int, batch: int, pooling: str) -> None:
    found = attention_map(tiny_vit(pooling=pooling), torch.rand(batch, 3, 4 * rows, 4 * columns))
    assert found is not None
    assert found.shape == (batch, rows, columns)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1
    if rows * columns > 1:
        assert (found.flatten(1).max(1).values == 1).all()


def test_mode_and_gradients_stay_as_they_were() -> None:
    model = tiny_vit(drop_path=0.5)
    model.train()
    model.blocks[0].eval()  # a frozen part
    before = [module.training for module in model.modules()]
    first, second = attention_map(model, IMAGES), attention_map(model, IMAGES)
    assert [module.training for module in model.modules()] == before
    torch.testing.assert_close(first, second)
    assert first is not None
    assert not first.requires_grad
    with pytest.raises(MiradaError):
        attention_map(model, torch.rand(1, 3, 7, 7))
    assert [module.training for module in model.modules()] == before


class Staged(Backbone):
    """Reports the layers it is given, as a backbone of several grids does."""

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor, *, probe: Probe | None = None) -> Features:
        trace = tuple(probe(layer) for layer in self.layers) if probe else ()
        return Features(images.mean((2, 3)), images.permute(0, 2, 3, 1), images[:, :0, 0], trace)


def layer(index: int, grid: tuple[int, int], scale: float = 3.0) -> Layer:
    tokens = grid[0] * grid[1]
    generator = torch.Generator().manual_seed(index)
    query, key, value = scale * torch.randn(3, 2, 2, tokens, 8, generator=generator)
    bias = scale * torch.randn(2, tokens, tokens, generator=generator)
    return Layer(index, value.transpose(1, 2).flatten(2), query, key, value, grid, 0, bias)


def test_only_the_layers_of_the_last_grid_count() -> None:
    early, late = [layer(0, (4, 4)), layer(1, (4, 4))], [layer(2, (2, 2)), layer(3, (2, 2))]
    whole, last = attention_map(Staged(early + late), IMAGES), attention_map(Staged(late), IMAGES)
    assert whole is not None
    assert whole.shape == (2, 2, 2)
    torch.testing.assert_close(whole, last, rtol=0, atol=0)


def test_coatnet_looks_through_its_coarsest_grid() -> None:
    model = CoAtNet((8, 8, 8, 32, 64), (1, 1, 2, 2), image_size=64)
    model.train()
    statistics = [buffer.clone() for buffer in model.buffers()]
    found = attention_map(model, torch.rand(2, 3, 96, 64))
    assert found is not None
    assert found.shape == (2, 3, 2)
    assert all(torch.equal(before, after) for before, after in zip(statistics, model.buffers(), strict=True))


def test_no_attention_no_map_and_no_preference_no_map_of_rounding() -> None:
    assert attention_map(Staged([]), IMAGES) is None
    uniform = attention_map(Staged([layer(0, (5, 3), scale=0)]), IMAGES)
    assert uniform is not None
    assert (uniform == 0).all()
