"""What opening and reading a checkpoint costs."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from saved import save

from mirada.checkpoints.weights import open_weights

MEASURE = """
import re, sys
from pathlib import Path
from mirada.checkpoints.weights import open_weights

for file in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    peaks = []
    for step in range(2):
        peaks.append(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
        weights = step or open_weights(file)
        step or sum(weights.get(name).sum() for name in weights.shapes)
    print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_reading_takes_the_memory_of_the_file(tmp_path: Path) -> None:
    tensors = {f"blocks.{number}.weight": torch.ones(1000, 1000) for number in range(16)}  # 64 MB
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    files = [tmp_path / "a.safetensors", save(tmp_path / "a.pth", tensors)]
    run = subprocess.run([sys.executable, "-c", MEASURE, *files], capture_output=True, text=True, check=True)
    for file, memory in zip(files, run.stdout.split(), strict=True):
        assert 0.8 < int(memory) / file.stat().st_size < 1.3, file


def test_opening_costs_little_beside_safetensors(tmp_path: Path) -> None:
    """The names and shapes of a ViT-B's many tensors, and each of them, in not much more time than its own loader's."""
    tensors = {f"blocks.{block}.part{part}.weight": torch.ones(64, 64) for block in range(12) for part in range(16)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")

    def ours() -> None:
        weights = open_weights(tmp_path / "a.safetensors")
        for name in weights.shapes:
            weights.get(name)

    def best(function: Callable[[], Any]) -> float:
        times = []
        for _ in range(15):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
        return min(times)

    theirs = best(lambda: safetensors.torch.load_file(tmp_path / "a.safetensors"))
    assert best(ours) < 1.5 * theirs + 0.005  # neither reads: the bytes come when they are used
