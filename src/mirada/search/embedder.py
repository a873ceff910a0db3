"""The model of an index: which one it is, and what it makes of pictures and words."""

import json
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mirada.checkpoints.published import published_family
from mirada.data.images import Progress
from mirada.errors import MiradaError
from mirada.loading import load
from mirada.model import Model
from mirada.precision import choose_precision
from mirada.search.table import FORMAT, Made

__all__ = ["DEFAULT", "Embedder", "announce", "open_model", "reference"]

DEFAULT = "hf:google/siglip2-base-patch16-224"  # Apache-2.0, many languages
FEW = 8  # texts; for fewer, to turn the weights into bfloat16 costs more than it saves
SAMPLED = 1 << 14  # values of a tensor that its fingerprint is made of
ELSEWHERE = "without a network, use --model mirada:emoji, which comes with the package, or a model's folder"


class Embedder(NamedTuple):
    """A model and what an index has to remember of it."""

    model: Model
    made: Made
    precision: str  # of what it computes: "bfloat16" where that is faster

    def images(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """Unit vectors (n, D) of uint8 pixels (n, 3, H, W)."""
        with self._fast():
            return self.model.encode_image(self.model.preprocess.normalise(pixels), normalize=True).cpu().numpy()

    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors (n, D). Raises `MiradaError` for a model that sees images only."""
        if not self.made.words:
            raise MiradaError(
                "The model of this index sees pictures only: search with a picture, or index with a model that also "
                f"reads, such as {DEFAULT}."
            )
        with self._fast(len(texts) >= FEW):
            return self.model.encode_text(texts, normalize=True).cpu().numpy()

    def _fast(self, many: bool = True) -> torch.autocast:
        device = self.model.device
        return torch.autocast(device.type, torch.bfloat16, enabled=many and self.precision == "bfloat16")


def reference(ref: str) -> str:
    """A model's name as an index keeps it: folders by their absolute path."""
    return os.path.abspath(os.path.expanduser(ref)) if Path(ref).expanduser().is_dir() else ref


def open_model(ref: str | Model, *, device: str = "cpu", on_progress: Progress | None = None) -> Embedder:
    """The model, and what an index remembers of it.

    Raises:
        MiradaError: it cannot be had, or has random weights, which would be others the next time.
    """
    if isinstance(ref, Model):
        return _embedder(ref, "(given)")
    ref = reference(ref)
    try:
        model = load(ref, device=device, on_progress=on_progress)
    except MiradaError as error:
        if published_family(ref) is None:
            raise
        raise MiradaError(f"{str(error).rstrip('.')}; {ELSEWHERE}.") from error
    if not Path(ref).is_dir() and published_family(ref) is None and not model.provenance:
        raise MiradaError(f"{ref!r} has random weights, which would be others the next time: train it first, or give a "
                          f"folder or a published model, such as {DEFAULT}.")  # fmt: skip
    return _embedder(model, ref)


def _embedder(model: Model, ref: str) -> Embedder:
    made = Made(FORMAT, ref, _fingerprint(model), model.preprocess.to_dict(), model.dim, model.text is not None)
    return Embedder(model, made, choose_precision("auto", model.device))  # measured now, while no thread is busy


def _fingerprint(model: Model) -> str:
    """A hash of the preprocessing and of evenly spread values of every tensor, which no training leaves alone: all
    values of a large model would take seconds at each start."""
    total = blake2b(digest_size=16)
    total.update(json.dumps([model.architecture, model.preprocess.to_dict()], sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        values = tensor.detach().reshape(-1)
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sampled = values[:: max(1, len(values) // SAMPLED)].cpu().contiguous()
        total.update(sampled.view(torch.uint8).numpy().data)
    return total.hexdigest()


def announce(ref: str, say: Callable[[str], None]) -> None:
    """Say what a published model weighs, before it is fetched; nothing of one that is here already.

    Raises `MiradaError` if it cannot be had, and what to use instead.
    """
    if Path(ref).expanduser().is_dir() or published_family(ref) is None:
        return
    from mirada.checkpoints.published import describe_published

    try:
        _, facts = describe_published(ref)
    except MiradaError as error:
        raise MiradaError(f"{str(error).rstrip('.')}; {ELSEWHERE}.") from error
    if not facts["cached"]:
        size = "of unknown size" if facts["bytes"] is None else f"{facts['bytes'] / 1e6:,.0f} MB"
        say(f"{ref} is fetched once: {size}, licence {facts['licence'] or 'not stated'}")
