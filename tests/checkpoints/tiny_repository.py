"""The repository that tests of the hub fetch, and where its cache is."""

from pathlib import Path

import safetensors.torch
import torch

REPO = "someone/tiny"
CARD = "---\nlicense: apache-2.0\n---\nA model.\n"
LARGE = 3 << 20  # bytes, so that it comes in several pieces


def weights(seed: int = 0, size: int = LARGE) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    return safetensors.torch.save({"blocks.0.weight": torch.randn(size // 4, generator=generator)})


def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub" / "models--someone--tiny"


def kept(tmp_path: Path) -> list[str]:
    """What the cache holds under a final name, and what is unfinished."""
    return sorted(path.name for path in (cache(tmp_path) / "blobs").iterdir())
