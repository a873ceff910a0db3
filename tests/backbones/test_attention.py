"""The two paths of attention agree, forward and backward, and each is taken where it should be."""

import pytest
import torch
from torch.nn import functional as F

from mirada.backbones import attention
from mirada.backbones.attention import attend


@pytest.mark.parametrize("with_bias", [False, True])
def test_plain_products_compute_what_the_fused_kernel_does(with_bias: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 17, 8)
    bias = torch.randn(4, 17, 17) if with_bias else None
    results = []
    for kind in (torch.bfloat16, torch.float32):
        inputs = [tensor.to(kind).requires_grad_() for tensor in (query, key, value)]
        attended = attend(*inputs, None if bias is None else bias.to(kind))
        results.append([attended, *torch.autograd.grad(attended.float().square().sum(), inputs)])
    for plain, fused in zip(*results, strict=True):
        assert plain.dtype == torch.bfloat16
        assert (plain.float() - fused).norm() < 0.02 * fused.norm()


@pytest.mark.parametrize(
    ("dtype", "trained", "most", "passing", "fused"),
    [
        (torch.float32, True, 50, 50, True), (torch.float32, False, 50, 50, True),
        (torch.bfloat16, True, 50, 0, False), (torch.bfloat16, True, 49, 50, True),
        (torch.bfloat16, False, 0, 50, False), (torch.bfloat16, False, 50, 49, True),
    ],
)  # fmt: skip
def test_which_kernel_runs(
    dtype: torch.dtype, trained: bool, most: int, passing: int, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(attention, "MOST_SCORES", most)
    monkeypatch.setattr(attention, "MOST_PASSING", passing)
    attend(*torch.randn(3, 1, 2, 5, 4, dtype=dtype).requires_grad_(trained))
    assert len(calls) == fused
