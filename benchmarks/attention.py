"""Time of attention on a CPU in bfloat16: PyTorch's fused kernel, plain products, and what `attend` takes of the two.

    python benchmarks/attention.py

Writes docs/numbers/attention.md. Use a machine that does nothing else.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.backbones.attention import attend
from mirada.memory import keep_freed_memory
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "attention.md"
SHAPES = ((256, 4, 65, 32), (64, 3, 65, 64), (64, 3, 197, 64), (32, 12, 50, 64), (4, 6, 785, 64), (1, 12, 2000, 64))
TIMES = 15  # of which the fastest counts


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query * query.shape[-1] ** -0.5) @ key.mT).softmax(-1) @ value


def milliseconds(function: Callable[[Tensor, Tensor, Tensor], Tensor], joined: Tensor, heads: int) -> float:
    """Of `function` on queries, keys and values that lie side by side, as in a ViT, and of its gradient if they want
    one."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        query, key, value = joined.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        found = function(query, key, value)
        if joined.requires_grad:
            torch.autograd.grad(found, joined, found.detach())
        taken.append(time.perf_counter() - began)
    return 1000 * min(taken)


def main() -> None:
    keep_freed_memory()
    lines = []
    for images, heads, tokens, width in SHAPES:
        joined = torch.randn(images, tokens, 3 * heads * width).bfloat16()
        cells = []
        for trained in (False, True):
            joined.requires_grad_(trained)
            cells += [f"{milliseconds(one, joined, heads):.1f}" for one in (fused, plain, attend)]
        lines.append(f"| {images} | {heads} | {tokens} | {width} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    rows = "\n".join(lines)
    REPORT.write_text(
        f"""# Attention on a CPU in bfloat16

Milliseconds, the fastest of {TIMES}: forward alone, and forward and backward.

| images | heads | tokens | head width | fused | plain | `attend` | fused, both | plain, both | `attend`, both |
|---|---|---|---|---|---|---|---|---|---|
{rows}

Both kernels in a process that keeps freed memory, as training does (`mirada/memory.py`).

Machine: {machine()}. Repeat: `python benchmarks/attention.py`
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
