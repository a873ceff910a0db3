"""Which samples a training step sees, as a pure function of seed and step: that is what makes a resumed run exact."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mirada.data.images import Images
from mirada.data.samples import Samples
from mirada.errors import MiradaError

__all__ = ["Loader", "mix_seed"]


TRIES = 20  # to fill a batch with other images


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, without the collisions of adding them up."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
    return int(words[0] >> np.uint64(1))


class Loader:
    """Batches of `Samples` by step number.

    The stream is one random permutation of all images after another; step s takes the s-th batch of it, so that no
    image is left out at an epoch's end. With several processes, each takes its share of every batch. Other images take
    the place of those that cannot be read any more, so that all shares stay of one size.

    Args:
        images: canvases, see `mirada.data.images`.
        batch_size: images per step over all processes.
        mean, std: (C,), what pixels in 0..1 are normalised with.
        device: each batch of canvases is moved there, and augmentation then runs there.
        prefetch: decode the next batch while the current one trains. Worth it beside an accelerator, not on the
            cores that train.
    """

    def __init__(
        self, images: Images, batch_size: int, *, mean: Tensor, std: Tensor, seed: int,
        device: torch.device | str = "cpu", rank: int = 0, processes: int = 1, prefetch: bool = False,
    ) -> None:  # fmt: skip
        if batch_size < processes:
            raise MiradaError(f"A batch of {batch_size} cannot be shared by {processes} processes: use a larger one.")
        self.images, self.batch_size, self.seed, self.device = images, batch_size, seed, torch.device(device)
        self.mean, self.std, self.rank, self.processes = mean, std, rank, processes
        self._orders: dict[int, np.ndarray] = {}
        self._prefetcher = ThreadPoolExecutor(1, thread_name_prefix="mirada-prefetch") if prefetch else None
        self._next: tuple[int, Future[tuple[Tensor, Tensor, np.ndarray]]] | None = None

    @property
    def steps_per_epoch(self) -> float:
        return len(self.images) / self.batch_size

    def batch(self, step: int, size: tuple[int, int]) -> Samples:
        """The samples of a step, to be viewed at `size` (height, width)."""
        if self._prefetcher is None:
            canvases, aspects, places = self._read(step)
        else:
            if self._next is not None and self._next[0] == step:
                canvases, aspects, places = self._next[1].result()
            else:
                canvases, aspects, places = self._read(step)
            self._next = (step + 1, self._prefetcher.submit(self._read, step + 1))
        # Elsewhere than on CUDA, a copy that nobody waits for may still be read when its source is gone.
        canvases = canvases.to(self.device, non_blocking=self.device.type == "cuda")
        return Samples(
            canvases, aspects, torch.from_numpy(self.images.labels[places]),
            size=size, seed=mix_seed(self.seed, step, self.rank), mean=self.mean, std=self.std,
            captions=self.images.captions(places),
        )  # fmt: skip

    def places(self, step: int) -> np.ndarray:
        """Which images, by place in `images`, this process takes at a step."""
        start = step * self.batch_size
        places = np.array([self._at(position) for position in range(start, start + self.batch_size)])
        return places[self.rank :: self.processes]

    def _read(self, step: int) -> tuple[Tensor, Tensor, np.ndarray]:
        wanted = self.places(step)
        found = [self.images.get(wanted)]
        random = np.random.default_rng(mix_seed(self.seed, step, self.rank, 0xBAD))
        for _ in range(TRIES):
            missing = len(wanted) - sum(len(places) for _, _, places in found)
            if not missing:
                canvases, aspects, places = zip(*(one for one in found if len(one[2])), strict=True)
                return torch.cat(canvases), torch.cat(aspects), np.concatenate(places)
            found.append(self.images.get(random.integers(len(self.images), size=missing)))
        raise MiradaError(f"Hardly an image of the batch at step {step} can be read any more: has the folder gone?")

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self.images))
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch, 0x0DE2))
            self._orders = {key: value for key, value in self._orders.items() if key >= epoch - 1}
            self._orders[epoch] = torch.randperm(len(self.images), generator=generator).numpy()
        return int(self._orders[epoch][place])
