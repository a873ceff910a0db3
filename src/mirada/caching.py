"""Where results that take long are kept for the next time, and by what name."""

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["add_tensors", "cache_folder"]


def cache_folder(kind: str) -> Path | None:
    """$MIRADA_CACHE/kind, or ~/.cache/mirada/kind (under $XDG_CACHE_HOME if set); None if MIRADA_CACHE is empty, which
    keeps nothing."""
    root = os.environ.get("MIRADA_CACHE")
    if root == "":
        return None
    if root is None:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "mirada")
    return Path(os.path.expanduser(root)) / kind


def add_tensors(total: blake2b, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Add names, shapes, types and values to a hash."""
    for name, tensor in tensors:
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
