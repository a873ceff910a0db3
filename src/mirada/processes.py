"""What the parts of a run need of its other processes; with one process each function gives back what it was given.

torchrun starts them: `torchrun --nproc-per-node 2 -m mirada train ...`. All compute the same schedule, each with its
share of every batch; rank 0 alone writes and speaks.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch import distributed as dist

__all__ = [
    "agreed", "alone", "any_of", "average_in_place", "counted_once", "gathered", "joined", "largest", "processes",
    "rank", "start_alike", "summed", "summed_with_gradient",
]  # fmt: skip

_alone = False


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes that torchrun started, and part at the end; nothing where it started none."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not dist.is_available() or dist.is_initialized():
        yield
        return
    dist.init_process_group()
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """As if there were no others, for what one process does by itself while they go on."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def agreed(value: float, device: torch.device) -> float:
    """Rank 0's value."""
    if processes() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device if device.type == "cuda" else "cpu")
    dist.broadcast(tensor, 0)
    return float(tensor)


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether it is true for one process at least."""
    return bool(summed(torch.tensor(float(flag), device=device)))


@torch.no_grad()
def start_alike(module: nn.Module) -> None:
    """Give all processes rank 0's parameters and buffers."""
    if processes() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


@torch.no_grad()
def average_in_place(tensors: Iterable[Tensor]) -> None:
    """Replace each by its mean over all processes, in one exchange for each type of numbers."""
    if processes() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for group in by_type.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        flat /= processes()
        for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    tensor = tensor.detach().clone()
    if processes() > 1:
        dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def largest(tensor: Tensor) -> Tensor:
    """The largest value of each entry over all processes."""
    tensor = tensor.detach().clone()
    if processes() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


class _Sum(torch.autograd.Function):
    """Every process's loss depends on the sum, so that gradients are summed, too."""

    @staticmethod
    def forward(context: object, tensor: Tensor) -> Tensor:
        del context
        return summed(tensor)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        del context
        return summed(gradient)


def summed_with_gradient(tensor: Tensor) -> Tensor:
    """The sum over all processes, through which the gradients of all their losses flow."""
    if processes() == 1:
        return tensor
    result: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return result


def counted_once(tensor: Tensor) -> Tensor:
    """A parameter that every process's loss depends on in full, beside rows that are `gathered`: its gradient is
    divided by the number of processes, because those losses are multiplied by it."""
    return tensor.detach() + (tensor - tensor.detach()) / processes()


def gathered(tensor: Tensor) -> Tensor:
    """Rows (B, ...) of all processes in order of rank, (processes * B, ...). The gradient flows to this process's own
    rows; every process computes the same loss, so that the mean of gradients over processes is the whole gradient when
    the loss is multiplied by the number of processes."""
    if processes() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(processes())]
    dist.all_gather(parts, tensor.detach().contiguous())
    parts[rank()] = tensor
    return torch.cat(parts)
