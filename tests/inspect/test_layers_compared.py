"""CKA against its formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mirada.backbones import build
from mirada.errors import MiradaError
from mirada.features import Backbone
from mirada.inspect.similarity import cka, hsic, layer_similarity


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_cka(x: Tensor, y: Tensor) -> float:
    """Kornblith et al., section 3: HSIC of centred linear kernels, by entries."""
    count = len(x)
    centre = torch.eye(count, dtype=torch.float64) - 1 / count

    def hsic_of(a: Tensor, b: Tensor) -> float:
        k, m = centre @ (a @ a.mT) @ centre, centre @ (b @ b.mT) @ centre
        return sum(float(k[i, j] * m[j, i]) for i in range(count) for j in range(count))

    return hsic_of(x, y) / (hsic_of(x, x) * hsic_of(y, y)) ** 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 9), st.integers(1, 6))
def test_cka_is_the_formula_and_knows_no_rotation_or_scale(seed: int, count: int, dim: int) -> None:
    x, y = normal(seed, count, dim), normal(seed + 1, count, 4)
    found = float(cka(x, y))
    assert found == pytest.approx(slow_cka(x, y), abs=1e-9)
    assert -1e-9 <= found <= 1 + 1e-9
    rotation = torch.linalg.qr(normal(seed + 2, dim, dim))[0]
    assert float(cka(x, x)) == pytest.approx(1)
    assert float(cka(x, 7 * x @ rotation + 3)) == pytest.approx(1)


def test_the_estimate_in_batches_has_no_bias() -> None:
    """Equation 3, and its mean over many small batches is near the value of one large one."""
    x = normal(0, 2000, 5)
    y = torch.cat([x[:, :2], normal(1, 2000, 3)], 1)

    def kernel(part: Tensor) -> Tensor:
        return (part @ part.mT).fill_diagonal_(0)

    k, m = kernel(x[:6]), kernel(y[:6])
    ones = torch.ones(6, dtype=torch.float64)
    expected = (torch.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / (5 * 4) - 2 / 4 * ones @ k @ m @ ones) / 18
    torch.testing.assert_close(hsic(k, m), expected)
    small = [hsic(kernel(a), kernel(b)) for a, b in zip(x.split(8), y.split(8), strict=True)]
    assert float(torch.stack(small).mean()) == pytest.approx(float(hsic(kernel(x), kernel(y))), rel=0.1)


def made(seed: int, name: str = "vit-pico/8(depth=3, image_size=16)") -> Backbone:
    torch.manual_seed(seed)
    return build(name)


def test_layers_of_one_model_and_of_two() -> None:
    images = normal(3, 11, 3, 16, 16).float()
    one = made(0).train()
    found = layer_similarity(one, images, batch=4)
    assert found.shape == (3, 3)
    torch.testing.assert_close(found.diagonal(), torch.ones(3))
    torch.testing.assert_close(found, found.mT)
    assert one.training
    torch.testing.assert_close(layer_similarity(one, images, one, images, batch=4), found)
    other = layer_similarity(one, images, made(1, "vit-pico/4(depth=2, image_size=16, pooling='average')"), batch=4)
    assert other.shape == (3, 2)
    assert (other <= 1 + 1e-5).all()


def test_what_cannot_be_compared() -> None:
    images = normal(3, 5, 3, 32, 32).float()
    with pytest.raises(MiradaError, match="4 images or more, and these are 3"):
        layer_similarity(made(0), images[:3, :, :16, :16])
    with pytest.raises(MiradaError, match="these are 5 and 4"):
        layer_similarity(made(0), images, None, images[:4])


def test_a_transformer_beside_convolutions_and_what_has_both() -> None:
    images = normal(3, 6, 3, 32, 32).float()
    vit, resnet, coatnet = made(0), made(1, "resnet-18"), made(2, "coatnet-0")
    assert layer_similarity(vit, images[..., :16, :16], resnet, images).shape == (3, 8)
    assert layer_similarity(coatnet, images, resnet, images).shape == (2 + 3 + 5 + 2, 8)
    itself = layer_similarity(resnet, images)
    torch.testing.assert_close(itself.diagonal(), torch.ones(8))
    x = resnet.eval().embed(images).permute(0, 3, 1, 2)
    outputs = [x := block(x) for block in resnet.blocks]
    k, m = ((flat @ flat.mT).fill_diagonal_(0) for flat in (outputs[i].detach().flatten(1).double() for i in (1, 6)))
    expected = hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()
    torch.testing.assert_close(itself[1, 6], expected.float(), atol=1e-5, rtol=1e-4)
