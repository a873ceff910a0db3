"""Writing files so that neither a full disk nor a kill leaves half of one."""

import os
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from mirada.errors import MiradaError

__all__ = ["save_atomically", "write_whole"]


def save_atomically(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file beside `path`, then move it there: a full disk or a kill leaves the old file intact."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        safetensors.torch.save_file(tensors, temporary, metadata)
        with open(temporary, "r+b") as file:  # Windows flushes no file that is open for reading
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise MiradaError(
            f"Cannot save {path} ({error}): free some space or choose another --out; what was saved before is intact."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a page beside `path`, then move it there. Raises `OSError`; what was there before is intact then."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")  # a file name that is not UTF-8 holds lone surrogates
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
