"""Where attention is painted on grids that do not divide into blocks."""

import pytest
import torch
from PIL import Image

from mirada.backbones import build
from mirada.model import Model
from mirada.preprocess import Preprocess
from mirada.serve.explain import attention


@pytest.mark.parametrize(("side", "blocks", "right"), [(16, 16, 1.0), (17, 9, 18 / 17), (37, 13, 39 / 37)])
def test_blocks_lie_over_their_patches(side: int, blocks: int, right: float) -> None:
    torch.manual_seed(0)
    pixels = 4 * side
    name = f"vit-pico/4(image_size={pixels}, depth=1)"
    model = Model(name, build(name), Preprocess(size=(pixels, pixels), resize="squash")).eval()
    found = attention(model, Image.effect_noise((90, 60), 64).convert("RGB"))
    assert found["box"] == pytest.approx((0, 0, right, right))
    assert len(found["from"]) == len(found["from"][0][0]) == blocks
    shares = torch.tensor(found["from"]) / 1e6
    assert len(shares.unique()) > 20  # a random network looks nearly everywhere alike
    if blocks == side:
        torch.testing.assert_close(shares.sum((2, 3)), torch.ones(blocks, blocks), atol=0.01, rtol=0)
