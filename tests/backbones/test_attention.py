"""The two paths of attention agree, forward and backward."""

import pytest
import torch
from torch.nn import functional as F

from mirada.backbones.attention import attend


@pytest.mark.parametrize("with_bias", [False, True])
def test_training_in_bfloat16_computes_what_the_fused_kernel_does(with_bias: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 17, 8)
    bias = torch.randn(4, 17, 17) if with_bias else None
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
        attended = attend(*inputs, None if bias is None else bias.to(dtype))
        results.append([attended, *torch.autograd.grad(attended.float().square().sum(), inputs)])
    for plain, fused in zip(*results, strict=True):
        assert plain.dtype == torch.bfloat16
        assert (plain.float() - fused).norm() < 0.02 * fused.norm()


def test_the_fused_kernel_runs_whenever_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *arguments: calls.append(arguments))
    inputs = torch.randn(3, 1, 2, 5, 4, dtype=torch.bfloat16)
    attend(*inputs)
    attend(*inputs.float().requires_grad_())
    assert len(calls) == 2
    attend(*inputs.requires_grad_())
    assert len(calls) == 2
