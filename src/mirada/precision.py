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

    x, w = torch.ones(1024, 512), torch.ones(512, 512)  # not drawn, for the sake of who draws next
    half, full = (x.bfloat16(), w.bfloat16()), (x, w)
    times: dict[torch.dtype, list[float]] = {torch.bfloat16: [], torch.float32: []}
    for _ in range(8):
        for pair in (half, full):  # by turns, so that other work on the machine meets both
            begun = time.perf_counter()
            nn.functional.linear(*pair)
            times[pair[0].dtype].append(time.perf_counter() - begun)
    return "bfloat16" if min(times[torch.bfloat16]) * 1.5 < min(times[torch.float32]) else "float32"
