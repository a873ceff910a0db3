"""Grad-CAM, relevance and receptive fields, on every family, against slow loops of their formulas."""

import sys

import pytest
import torch
from torch import Tensor, nn

from mirada.backbones import build
from mirada.backbones.vit import ViT
from mirada.errors import MiradaError
from mirada.features import Features, Layer
from mirada.inspect.attention import has_class_token, pieces
from mirada.inspect.grad_cam import grad_cam
from mirada.inspect.receptive_field import mean_distance, receptive_field
from mirada.inspect.relevance import relevance
from mirada.model import Model
from mirada.preprocess import Preprocess

ATTENDING = [
    "vit-pico/8(depth=3, image_size=32)", "vit-pico/8(depth=3, image_size=32, pooling='average')",
    "vit-pico/8(depth=3, image_size=32, registers=2)", "coatnet-0",
]  # fmt: skip
OTHERS = ["resnet-18", "regnety-400mf"]


def model(name: str) -> Model:
    torch.manual_seed(0)
    backbone = build(name)
    head = nn.Linear(backbone.dim, 3)
    return Model(name, backbone, Preprocess(size=(64, 64)), head=head, classes=["cat", "dog", "fish"]).train()


def images(name: str) -> Tensor:
    side = 32 if "vit" in name else 64
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*ATTENDING, *OTHERS])
def test_grad_cam_is_the_papers_formula(name: str) -> None:
    one, pixels = model(name), images(name)
    found = grad_cam(one, pixels, "dog")
    assert one.training
    assert all(parameter.grad is None for parameter in one.parameters())
    one.eval()
    kept: list[Layer] = []
    features = one.backbone(pixels, probe=kept.append)
    same = [layer for layer in kept if layer.grid == kept[-1].grid]
    tokens = same[-2].tokens if len(same) > 1 else features.patches
    assert one.head is not None
    (gradient,) = torch.autograd.grad(one.head(features.pooled)[:, 1].sum(), tokens)
    prefix = same[-2].prefix if len(same) > 1 else 0
    tokens, gradient = (t.detach().reshape(2, -1, t.shape[-1])[:, prefix:] for t in (tokens, gradient))
    expected = torch.zeros(tokens.shape[:2])
    for image in range(2):
        weights = [float(gradient[image, :, channel].mean()) for channel in range(tokens.shape[2])]
        for place in range(tokens.shape[1]):
            total = sum(w * float(v) for w, v in zip(weights, tokens[image, place], strict=True))
            expected[image, place] = max(0.0, total)
    torch.testing.assert_close(found.flatten(1), expected, atol=1e-5, rtol=1e-3)


def slow_relevance(backbone: ViT, head: nn.Linear, pixels: Tensor, label: int) -> Tensor:
    """Equations 5 and 6, with the attention matrix in the graph, so that autograd itself finds its gradient."""
    x = backbone.stem(pixels).flatten(1, 2) + backbone.position_table((4, 4))
    assert backbone.prefix is not None
    prefix = backbone.prefix.clone()
    assert backbone.class_position is not None
    prefix[:, :1] = prefix[:, :1] + backbone.class_position
    x = torch.cat([prefix.expand(len(x), -1, -1), x], 1)
    matrices = []
    for block in backbone.blocks:
        qkv = block.attention.qkv(block.norm1(x)).unflatten(-1, (3, backbone.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (qkv[0] @ qkv[1].mT * qkv[0].shape[-1] ** -0.5).softmax(-1)
        matrices.append(attention)
        x = x + block.attention.proj((attention @ qkv[2]).transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.norm2(x))
    gradients = torch.autograd.grad(head(backbone.norm(x)[:, 0])[:, label].sum(), matrices)
    flow = torch.eye(x.shape[1]).repeat(len(x), 1, 1)
    for attention, gradient in zip(matrices, gradients, strict=True):
        flow = flow + (attention * gradient).clamp(min=0).mean(1) @ flow
    return flow[:, 0, backbone.prefix_tokens :].detach()


@pytest.mark.parametrize("name", [ATTENDING[0], ATTENDING[2]])
def test_relevance_is_the_papers_formula_though_no_matrix_is_kept(name: str) -> None:
    one, pixels = model(name), images(name)
    assert isinstance(one.backbone, ViT)
    assert one.head is not None
    for block in one.backbone.blocks:
        nn.init.normal_(block.attention.qkv.weight, std=0.3)
    expected = slow_relevance(one.backbone.eval(), one.head, pixels, 2)
    assert float(expected.max()) > 1e-4
    torch.testing.assert_close(relevance(one, pixels, "fish").flatten(1), expected, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(relevance(one, pixels, 2), relevance(one, pixels, "fish"))


@pytest.mark.parametrize("name", ATTENDING)
def test_relevance_of_every_family(name: str) -> None:
    one, pixels = model(name), images(name)
    found = relevance(one, pixels)
    assert found.shape == (2, *((4, 4) if "vit" in name else (2, 2)))
    assert (found >= 0).all()
    assert found.isfinite().all()
    assert all(parameter.grad is None for parameter in one.parameters())
    assert one.training


@pytest.mark.parametrize("explain", [grad_cam, relevance])
def test_targets_that_there_are_not(explain: object) -> None:
    one, pixels = model(ATTENDING[0]), images(ATTENDING[0])
    with pytest.raises(MiradaError, match="does not know the class 'cow': it knows cat, dog, fish"):
        explain(one, pixels, "cow")  # type: ignore[operator]
    with pytest.raises(MiradaError, match="There is no class 3: there are 3"):
        explain(one, pixels, 3)  # type: ignore[operator]
    headless = Model(ATTENDING[0], one.backbone, one.preprocess)
    with pytest.raises(MiradaError, match="no classification head"):
        explain(headless, pixels)  # type: ignore[operator]
    text = torch.randn(one.backbone.dim, generator=torch.Generator().manual_seed(1))
    assert explain(headless, pixels, text).shape == (2, 4, 4)  # type: ignore[operator]


@pytest.mark.parametrize("name", OTHERS)
def test_relevance_without_attention(name: str) -> None:
    with pytest.raises(MiradaError, match="has no attention"):
        relevance(model(name), images(name), 0)


@pytest.mark.parametrize("name", [*ATTENDING, *OTHERS])
def test_receptive_fields_are_shares_of_the_pixels(name: str) -> None:
    backbone, pixels = build(name), images(name)
    fields = receptive_field(backbone, pixels, batch=1)
    height, width = pixels.shape[-2:]
    assert len({field.name for field in fields}) == len(fields)
    for field in fields:
        assert field.weight.shape == (height, width)
        assert (field.weight >= 0).all()
        torch.testing.assert_close(field.weight.sum(), torch.tensor(1.0))
        assert 0 < field.distance < (height**2 + width**2) ** 0.5
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_fields_of_convolutions_grow_and_are_bounded_by_what_they_can_see() -> None:
    fields = receptive_field(build("resnet-18"), images("resnet-18"))
    assert [field.name for field in fields] == [f"convolutions {number}" for number in (1, 2, 3, 4)]
    distances = [field.distance for field in fields]
    assert distances == sorted(distances)
    seen = (fields[0].weight > 0).nonzero()  # 7x7 at stride 2, pooled 3x3 at 2, four 3x3: 11 + 4 * 2 * 4 pixels at most
    assert int((seen.amax(0) - seen.amin(0)).max()) + 1 <= 43


def test_a_layer_that_mixes_nothing_sees_its_own_patch_only() -> None:
    backbone = build("vit-pico/8(depth=1, image_size=32, pooling='average')")
    assert isinstance(backbone, ViT)
    nn.init.zeros_(backbone.blocks[0].attention.proj.weight)
    (layer, end) = receptive_field(backbone, images("vit"))
    for field in (layer, end):
        inside = field.weight[16:24, 16:24].sum()
        torch.testing.assert_close(inside, torch.tensor(1.0))


def test_the_mean_distance_of_a_known_field() -> None:
    weight = torch.zeros(8, 8)
    weight[4, 4] = 1  # half a pixel down and right of the middle of the 2 x 2 places' second
    assert mean_distance(weight, (2, 2)) == pytest.approx(1.5 * 2**0.5)


@pytest.mark.parametrize("pooling", ["class", "average", "sequence", "attention"])
def test_grad_cam_of_a_single_block_is_of_its_embeddings(pooling: str) -> None:
    one, pixels = model(f"vit-pico/8(depth=1, image_size=32, pooling={pooling!r})"), images("vit")
    found = grad_cam(one, pixels, 1)
    one.eval()
    embedded = one.backbone.embed(pixels).detach().requires_grad_()
    assert one.head is not None
    (gradient,) = torch.autograd.grad(one.head(one.backbone.encode(embedded).pooled)[:, 1].sum(), embedded)
    expected = torch.einsum("bhwc,bc->bhw", embedded.detach(), gradient.mean((1, 2))).clamp(min=0)
    assert float(found.max()) > 0
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("explain", [grad_cam, relevance])
def test_any_scalar_of_the_features(explain: object) -> None:
    one, pixels = model(ATTENDING[0]), images(ATTENDING[0])

    def logit(features: Features) -> Tensor:
        assert one.head is not None
        return one.head(features.pooled)[:, 2]  # type: ignore[no-any-return]

    torch.testing.assert_close(explain(one, pixels, logit), explain(one, pixels, "fish"))  # type: ignore[operator]
    with pytest.raises(MiradaError, match=r"has the shape \(2, 64\): give a function"):
        explain(one, pixels, lambda features: features.pooled)  # type: ignore[operator]


@pytest.mark.parametrize("room", [17, 400])
@pytest.mark.parametrize("name", ATTENDING)
def test_relevance_follows_one_row_of_the_product(name: str, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole product of equation 6, of matrices as large as they are, on every family."""
    one, pixels = model(name).eval(), images(name)
    kept: list[Layer] = []
    features = one.backbone(pixels, probe=kept.append)
    assert one.head is not None
    attended = [layer.attended for layer in kept]
    gradients = torch.autograd.grad(one.head(features.pooled)[:, 0].sum(), attended)  # type: ignore[arg-type]
    last = kept[-1]
    flow = torch.eye(last.tokens.shape[1]).repeat(2, 1, 1)
    for layer, gradient in zip(kept, gradients, strict=True):
        if layer.grid == last.grid:
            flow = flow + (layer.attention() * (gradient @ layer.value.mT)).clamp(min=0).mean(1) @ flow
    rows = flow[:, :1] if has_class_token(one.backbone) else flow[:, last.prefix :]
    expected = rows[:, :, last.prefix :].mean(1).detach()
    monkeypatch.setattr(sys.modules[pieces.__module__], "AT_ONCE", room)
    torch.testing.assert_close(relevance(one, pixels, 0).flatten(1), expected, atol=1e-6, rtol=1e-4)
