"""Decoding a source into tensors: once and kept, when it fits into memory, or on demand."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mirada.data.dataset import Captions
from mirada.data.decode import UndecodableImage
from mirada.data.sources import Source
from mirada.errors import MiradaError
from mirada.memory import memory

__all__ = ["Images", "NoImages", "Progress", "fits_in_memory"]

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many
Reader = Callable[[bytes], tuple[Tensor, float]]  # encoded file -> uint8 pixels (C, H, W), width over height


class NoImages(MiradaError):  # noqa: N818  # it says what there is
    """No file of a source can be read as an image; `skipped` says of each why."""

    def __init__(self, message: str, skipped: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.skipped = skipped


def fits_in_memory(count: int, bytes_each: int) -> bool:
    """Whether `count` images may be kept: at most a third of the memory, all processes of torchrun together."""
    return count * bytes_each * 3 * int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= memory()


class Images:
    """The decodable images of a source as uint8 tensors of one shape.

    Threads, not processes: Pillow releases the interpreter while it decodes, nothing is pickled, and on a machine whose
    cores also train, decoding between the steps with all cores beats fighting over them.

    Raises:
        MiradaError: with `strict`, for the first file that is not an image; without, only when none is left. Files
            that cannot be decoded are listed in `skipped`.
    """

    def __init__(
        self, source: Source, reader: Reader, *, strict: bool = False, keep: bool | None = None,
        on_progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.source, self.reader, self.strict = source, reader, strict
        self.skipped: dict[int, str] = {}
        self.usable = np.arange(len(source))  # indices into the source
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mirada-decode")
        first = self._first()
        keep = fits_in_memory(len(source), first.numel()) if keep is None else keep
        self._kept: tuple[Tensor, Tensor] | None = self._decode_all(first, on_progress) if keep else None

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def labels(self) -> np.ndarray:
        """int64 (len,), -1 where there is none."""
        labels = self.source.labels
        return np.full(len(self), -1, np.int64) if labels is None else labels[self.usable]

    def captions(self, places: Sequence[int] | np.ndarray) -> list[Captions]:
        """The captions of some of them, none or more of each."""
        captions = self.source.captions
        return [() if captions is None else captions[index] for index in self.usable[places].tolist()]

    def get(self, places: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """uint8 (b, C, H, W), aspects (b,), and the b places of those asked for that could be decoded."""
        places = np.asarray(places)
        if self._kept is not None:
            rows = torch.from_numpy(places)
            return self._kept[0][rows], self._kept[1][rows], places
        decoded = list(self._threads.map(self._read, self.usable[places]))
        good = [number for number, one in enumerate(decoded) if one is not None]
        if not good:
            return torch.empty(0), torch.empty(0), places[:0]
        pixels, aspects = zip(*(one for one in decoded if one is not None), strict=True)
        return torch.stack(pixels), torch.tensor(aspects), places[good]

    def skipped_files(self) -> list[dict[str, str]]:
        """[{"path", "reason"}, ...] in the source's order."""
        return [{"path": self.source.path(index), "reason": self.skipped[index]} for index in sorted(self.skipped)]

    def _read(self, index: int) -> tuple[Tensor, float] | None:
        try:
            return self.reader(self.source.read(int(index)))
        except (UndecodableImage, OSError) as error:
            if self.strict:
                raise MiradaError(f"Cannot read {self.source.path(int(index))}: {error}") from error
            self.skipped[int(index)] = str(error)
            return None

    def _first(self) -> Tensor:
        for index in range(len(self.source)):
            if (one := self._read(index)) is not None:
                return one[0]
        raise NoImages(
            f"None of the {len(self.source)} files can be read as an image; the first: "
            f"{self.source.path(0)} ({self.skipped[0]})."
            if len(self.source)
            else "There are no images to read.",
            self.skipped_files(),
        )

    def _decode_all(self, first: Tensor, on_progress: Progress | None) -> tuple[Tensor, Tensor]:
        count = len(self.source)
        pixels = torch.empty(count, *first.shape, dtype=torch.uint8)
        aspects = torch.ones(count)

        def decode(index: int) -> bool:
            one = self._read(index)
            if one is not None:
                pixels[index], aspects[index] = one
            return one is not None

        good = np.zeros(count, bool)
        for index, success in enumerate(self._threads.map(decode, range(count))):
            good[index] = success
            if on_progress is not None and (index % 16 == 15 or index + 1 == count):
                on_progress("reading images", index + 1, count)
        self.usable = np.flatnonzero(good)
        for place, index in enumerate(self.usable.tolist()):
            if place < index:  # a copy of all of them might not fit
                pixels[place], aspects[place] = pixels[index], aspects[index]
        return pixels[: len(self.usable)], aspects[: len(self.usable)]
