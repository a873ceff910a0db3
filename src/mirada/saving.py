"""Writing tensors so that neither a full disk nor a kill leaves half a file."""

import os
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from mirada.errors import MiradaError

__all__ = ["save_atomically"]


def save_atomically(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file beside `path`, then move it there: a full disk or a kill leaves the old file intact."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        safetensors.torch.save_file(tensors, temporary, metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise MiradaError(
            f"Cannot save {path} ({error}): free some space or choose another --out; what was saved before is intact."
        ) from error
