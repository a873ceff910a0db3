"""The two paths of attention agree, forward and backward."""

import pytest
import torch
from torch.nn import functional as F

from mirada.backbones import attention
from mirada.backbones.attention import attend


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float32, 1e-6)])
def test_plain_products_compute_what_the_fused_kernel_does(
    dtype: torch.dtype, tolerance: float, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, value = torch.randn(3, 2, 4, 17, 8)
    bias = torch.randn(4, 17, 17) if with_bias else None
    results = []
    for fast, kind in ((True, dtype), (False, torch.float32)):
        monkeypatch.setattr(attention, "fast_float32", lambda fast=fast: fast)
        inputs = [tensor.to(kind).requires_grad_() for tensor in (query, key, value)]
        attended = attend(*inputs, None if bias is None else bias.to(kind))
        results.append([attended, *torch.autograd.grad(attended.float().square().sum(), inputs)])
    for plain, fused in zip(*results, strict=True):
        assert plain.dtype == dtype
        assert (plain.float() - fused).norm() < tolerance * fused.norm()


@pytest.mark.parametrize(
    ("dtype", "fast", "tokens", "trained", "fused"),
    [
        (torch.float32, False, 5, True, True), (torch.float32, True, 5, False, False),
        (torch.bfloat16, False, 5, False, False), (torch.bfloat16, False, 300, False, True),
        (torch.bfloat16, False, 300, True, False), (torch.float64, True, 5, True, True),
    ],
)  # fmt: skip
def test_which_kernel_runs(
    dtype: torch.dtype, fast: bool, tokens: int, trained: bool, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(attention, "fast_float32", lambda: fast)
    attend(*torch.randn(3, 1, 2, tokens, 4, dtype=dtype).requires_grad_(trained))
    assert len(calls) == fused
