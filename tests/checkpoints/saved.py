"""Checkpoints that tests write, and what they must be read as."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mirada.checkpoints.weights import Weights

TENSORS = {
    "blocks.0.weight": torch.arange(12.0).reshape(3, 4), "blocks.0.bias": torch.tensor([1.5, -2.0, 3.25]),
    "norm.num_batches_tracked": torch.tensor(7), "index": torch.arange(6).reshape(2, 3), "empty": torch.empty(0, 3),
    "mask": torch.tensor([[True, False]]),
}  # fmt: skip


def same(weights: Weights, tensors: dict[str, Tensor]) -> None:
    """Exactly these tensors, floating point ones in float32."""
    assert weights.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        found = weights.get(name)
        assert found.dtype == (torch.float32 if tensor.is_floating_point() else tensor.dtype), name
        assert torch.equal(found, tensor.float() if tensor.is_floating_point() else tensor), name
        assert found.is_contiguous(), name
        assert not found.requires_grad


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


class Runs:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False).half()
        self.register_buffer("counted", torch.arange(5))
        self.attribute = torch.randn(2)  # neither parameter nor buffer: no part of the state dict
        self.sizes, self.listed = [3, 4], [torch.zeros(1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x) + self.attribute[0]


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        base = torch.randn(4, 6)
        self.visual = Inner()
        self.blocks = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
        self.twin = nn.Linear(2, 3)
        self.twin.weight = self.blocks[0].weight
        self.across = nn.Parameter(base.T)
        self.register_buffer("part", base[1:3, ::2])
        self.logit_scale = nn.Parameter(torch.tensor(2.5, dtype=torch.bfloat16))
        self.register_buffer("empty", torch.empty(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)
