"""Numbers that must not change: each family with weights from a formula, on an image from a formula.

They catch what shapes and round trips cannot: another order of operations, a lost residual, another epsilon. A change
on purpose updates them, and says so.
"""

import pytest
import torch

from mirada.backbones import build

GOLDEN: dict[str, list[float]] = {
    "vit-pico/8(image_size=32)": [0.973002, 0.869888, 0.90254, 1.14855, 1.00529],
    "vit-pico/8(pooling='average', positions='sincos', activation='swiglu', registers=2)": [
        1.11002,
        1.19577,
        1.05894,
        0.900388,
        1.01126,
    ],
    "vit-pico/8(pooling='attention', positions='rotary', activation='quickgelu', pre_norm=True, layer_scale=0.5)": [
        0.146889,
        0.621116,
        -0.488681,
        -0.402635,
        0.999699,
    ],
    "vit-pico/8(stem='convolutional', pooling='sequence', image_size=32)": [
        0.826154,
        1.29669,
        0.155375,
        -1.84049,
        0.834975,
    ],
    "vit-pico/8(stem='deep', pooling='sequence', image_size=32)": [1.06815, 1.17809, 1.05913, 0.887923, 1.01021],
    "coatnet-0": [0.907995, 0.896263, 0.89318, 1.12612, 1.0003],
    "resnet-18": [1.76111, 2.12554, 0.210467, 0, 1.17932],
    "regnety-400mf": [4.70133, 6.52071, 6.00828, 6.78369, 5.1398],
}


def wave(shape: torch.Size, phase: int, size: float) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) * 0.7310 + phase).sin().float().view(shape) * size


def first_numbers(name: str) -> list[float]:
    backbone = build(name).eval()
    with torch.no_grad():
        for index, parameter in enumerate(backbone.parameters()):
            offset = 1.0 if parameter.ndim == 1 and index % 2 == 0 else 0.0
            parameter.copy_(wave(parameter.shape, index, 0.1) + offset)
        features = backbone(wave(torch.Size((1, 3, 32, 48)), 1, 1.0))
    return [*features.pooled[0, :4].tolist(), float(features.patches.double().abs().mean())]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    assert first_numbers(name) == pytest.approx(GOLDEN[name], rel=2e-4, abs=2e-5)
