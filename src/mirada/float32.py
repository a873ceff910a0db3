"""Products of float32 matrices on a CPU, by the library that is fast on this machine."""

import time
from functools import cache

import torch

__all__ = ["allow_fast_float32", "fast_float32"]

_fast = False


@cache
def allow_fast_float32() -> bool:
    """Let oneDNN multiply float32 matrices, in this process, if it is faster here and as precise; returns whether.

    PyTorch gives such products to MKL, which on AMD's processors does not use all of their units: 97 against 215
    GFLOP/s (one core of an EPYC 9005, PyTorch 2.13). It asks oneDNN only where that may round factors to bfloat16,
    which oneDNN in fact does only where it pays, on processors with AMX. So allow it, look at speed and error, and take
    it back unless the result is float32 to the last digits. A ViT-S then encodes 18 images of 224 px a second, not 10.
    """
    backend = getattr(torch.backends.mkldnn, "matmul", None)
    if backend is None:  # PyTorch before 2.9
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 512, 512, generator=generator)
    exact = left.double() @ right.double()
    found = {}
    before = backend.fp32_precision
    for setting in ("ieee", "bf16"):
        backend.fp32_precision = setting
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            product = left @ right
            times.append(time.perf_counter() - begun)
        found[setting] = min(times), float((product - exact).norm() / exact.norm())
    global _fast
    faster = found["bf16"][0] * 1.3 < found["ieee"][0]
    as_precise = found["bf16"][1] < 2e-6  # float32 gives 3e-7, rounding to bfloat16 2e-3
    _fast = faster and as_precise
    backend.fp32_precision = "bf16" if _fast else before
    return _fast


def fast_float32() -> bool:
    """Whether oneDNN multiplies float32 matrices now. A plain variable, because torch.compile cannot ask PyTorch."""
    return _fast
