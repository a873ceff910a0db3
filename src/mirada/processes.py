"""What objectives need of the other processes of a run; with one process each function gives back what it was given."""

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["gathered", "processes", "rank", "summed"]


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@torch.no_grad()
def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    tensor = tensor.detach().clone()
    if processes() > 1:
        dist.all_reduce(tensor)
    return tensor


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
