"""A few rows that stand for many: the greedy k-centre coreset of PatchCore (Roth et al. 2021, arXiv:2106.08265,
algorithm 1), over a stream of any length in a memory that does not grow with it."""

import torch
from torch import Tensor

__all__ = ["Coreset", "k_centres", "nearest"]

PROJECTED = 64  # dimensions in which centres are chosen, by the lemma of Johnson and Lindenstrauss
BUFFER = 2  # times as many rows as are kept may wait
AT_ONCE = 1 << 24  # distances held at a time


class Coreset:
    """At most `size` of all rows that were added, so that each of those is near a row that was kept.

    Rows wait until there are `BUFFER` times `size` beside the kept ones, and all together are then reduced to `size`
    (merge and reduce). That also says how far the farthest row is from a kept one, and from then on a row that is no
    farther than that is not even taken in: new parts of a stream are mostly like the old ones.

    Attributes:
        most_held: the most rows that were held at any time.
        radius: in the projection, no row that was added is farther than this from a kept one.
    """

    def __init__(self, size: int, dim: int, seed: int = 0) -> None:
        self.size = size
        generator = torch.Generator().manual_seed(seed)
        self._projection = None
        if dim > PROJECTED:
            self._projection = torch.randn(dim, PROJECTED, generator=generator) / PROJECTED**0.5
        self._rows: list[Tensor] = []
        self._low: list[Tensor] = []
        self._origins: list[Tensor] = []
        self._kept = 0  # of the first of those, rows that a reduction left
        self._near = 0.0
        self.held = self.most_held = 0
        self.radius = 0.0

    def add(self, rows: Tensor, origin: int) -> None:
        """Take in rows (n, D), float32, of the image of that number."""
        for part in torch.split(rows, self.size):
            low = part if self._projection is None else part @ self._projection
            if self._kept:
                new = nearest(low, self._low[0])[0] > self._near
                part, low = part[new], low[new]
            self._rows.append(part.clone())
            self._low.append(low.clone())
            self._origins.append(torch.full((len(part),), origin))
            self.held += len(part)
            self.most_held = max(self.most_held, self.held)
            if self.held > (1 + BUFFER) * self.size:
                self._reduce()

    def finish(self) -> tuple[Tensor, Tensor]:
        """The kept rows (at most `size`, D), and the number of the image that each is from."""
        self._reduce()
        return self._rows[0], self._origins[0]

    def _reduce(self) -> None:
        self._rows, self._low = [torch.cat(self._rows)], [torch.cat(self._low)]
        self._origins = [torch.cat(self._origins)]
        if self.held > self.size:
            chosen, near = k_centres(self._low[0], self.size)
            self._rows, self._low = [self._rows[0][chosen]], [self._low[0][chosen]]
            self._origins = [self._origins[0][chosen]]
            self._near, self.radius = near, self.radius + near
        self._kept = self.held = len(self._rows[0])


def k_centres(rows: Tensor, count: int) -> tuple[Tensor, float]:
    """Places of at most `count` of the rows (n, D), and how far the farthest row is from the nearest of them.

    The first is that nearest to the mean; each next one is the farthest from all before it, which is at most twice as
    far as the best choice would have it (Gonzalez 1985). Stops when all rows are there.
    """
    centred = rows - rows.mean(0)
    squares = centred.square().sum(1)
    place = int(squares.argmin())
    distances = torch.full_like(squares, torch.inf)
    chosen = []
    for _ in range(min(count, len(rows))):
        chosen.append(place)
        away = (squares - 2 * (centred @ centred[place]) + squares[place]).clamp_(min=0)
        distances = torch.minimum(distances, away)
        distances[place] = 0
        place = int(distances.argmax())
        if float(distances[place]) == 0:
            break
    return torch.tensor(chosen), float(distances.max().sqrt())


def nearest(asked: Tensor, known: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """Distances and places of the `count` nearest of `known` (N, D) for each of `asked` (M, D), the nearest first:
    (M, count) each, or (M,) each for one."""
    parts = torch.split(asked, max(1, AT_ONCE // max(1, len(known))))
    places = torch.cat([torch.cdist(part, known).topk(count, 1, largest=False).indices for part in parts])
    # Large products lose what is small beside the rows' length: the few that count are computed again, exactly.
    distances = torch.stack([torch.linalg.vector_norm(asked - known[column], dim=1) for column in places.T], 1)
    return (distances[:, 0], places[:, 0]) if count == 1 else (distances, places)
