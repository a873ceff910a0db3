"""In which precision to compute on this machine."""

import time

import torch
from torch import nn

__all__ = ["choose_precision"]


def choose_precision(setting: str, device: torch.device) -> str:
    """What "auto" means on this machine: bfloat16 where a matrix product in it is at least 1.5 times as fast.

    Measured, because processors without bfloat16 units emulate it slowly and none of the names tells.
    """
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type != "cpu":
        return "float32"

    def seconds(dtype: torch.dtype) -> float:
        x, w = torch.randn(1024, 512, dtype=dtype), torch.randn(512, 512, dtype=dtype)
        times = []
        for _ in range(8):
            begun = time.perf_counter()
            nn.functional.linear(x, w)
            times.append(time.perf_counter() - begun)
        return min(times)

    return "bfloat16" if seconds(torch.bfloat16) * 1.5 < seconds(torch.float32) else "float32"
