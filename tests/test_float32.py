"""Fast float32 products are taken only where they are float32."""

from collections.abc import Iterator

import pytest
import torch

from mirada import float32
from mirada.float32 import allow_fast_float32, fast_float32

backend = getattr(torch.backends.mkldnn, "matmul", None)


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(float32, "_fast", False)
    before = getattr(backend, "fp32_precision", None)
    yield
    if backend is not None:
        backend.fp32_precision = before
    allow_fast_float32.cache_clear()


def test_products_are_float32_whatever_was_chosen() -> None:
    allow_fast_float32.cache_clear()
    chosen = allow_fast_float32()
    assert fast_float32() == chosen
    for rows, inner, columns in [(4160, 192, 768), (33, 1000, 65), (768, 4160, 192)]:
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        exact = left.double() @ right.double().T
        assert float((left @ right.T - exact).norm() / exact.norm()) < 2e-6


@pytest.mark.skipif(backend is None, reason="this PyTorch has no such setting")
def test_what_rounds_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    product = torch.Tensor.__matmul__

    def rounding(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        rounds = left.dtype == torch.float32 and backend.fp32_precision == "bf16"
        return product(left.bfloat16(), right.bfloat16()).float() if rounds else product(left, right)

    allow_fast_float32.cache_clear()
    backend.fp32_precision = "ieee"
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert not allow_fast_float32()
    assert not fast_float32()
