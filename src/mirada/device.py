"""Where tensors live: `cpu`, `cuda` or `mps`, by a name that is checked before anything is computed; or nowhere yet."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mirada.errors import MiradaError, Misuse

__all__ = ["choose_device", "without_values"]


def choose_device(name: str | torch.device) -> torch.device:
    """The device of that name; "auto" is CUDA where there is a GPU for it, and the CPU elsewhere.

    Raises:
        Misuse: a name that is no device.
        MiradaError: a device that this machine, or this build of PyTorch, does not have.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun started one process for each
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise Misuse(f"There is no device {name!r}: choose auto, cpu, cuda or mps.") from None
    counts = {"cpu": 1, "cuda": torch.cuda.device_count() if has_cuda else 0, "mps": int(has_mps)}
    if device.type not in counts:
        raise Misuse(f"Mirada does not run on the device {str(device)!r}: choose auto, cpu, cuda or mps.")
    if (device.index or 0) >= counts[device.type]:
        raise MiradaError(f"PyTorch finds no device {str(device)!r} on this machine: choose auto or cpu.")
    return device


@contextmanager
def without_values() -> Iterator[None]:
    """Modules that are made inside have shapes, but no memory and no values (device "meta"), until they are given some.

    Drawing values for them would draw nothing, and yet take over a second the first time: PyTorch (2.13) loads its
    compiler to do so.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, torch.Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
