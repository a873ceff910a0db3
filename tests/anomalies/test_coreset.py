"""The coreset: how many rows it holds, and that every row it was given is near one that it kept."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirada.anomalies.coreset import BUFFER, PROJECTED, Coreset, k_centres, nearest


def farthest(rows: torch.Tensor, kept: torch.Tensor) -> float:
    return max(min(float(torch.dist(row, one)) for one in kept) for row in rows)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 40), st.integers(1, 30))
@settings(max_examples=60)
def test_a_stream_is_covered_in_bounded_memory(seed: int, size: int, images: int, patches: int) -> None:
    random = torch.Generator().manual_seed(seed)
    coreset = Coreset(size, 3)
    stream = []
    for image in range(images):
        rows = torch.randn(patches, 3, generator=random) + image / 10
        stream.append(rows)
        coreset.add(rows, image)
    kept, origins = coreset.finish()
    assert 1 <= len(kept) <= size
    assert coreset.most_held <= (2 + BUFFER) * size
    everything = torch.cat(stream)
    assert farthest(everything, kept) <= coreset.radius + 1e-3
    for row, origin in zip(kept, origins.tolist(), strict=True):
        assert bool((stream[origin] == row).all(1).any())


def test_what_is_held_does_not_grow_with_the_stream() -> None:
    most = []
    for images in (50, 500, 2000):
        coreset = Coreset(32, 8)
        random = torch.Generator().manual_seed(0)
        for image in range(images):
            coreset.add(torch.randn(16, 8, generator=random), image)
        most.append(coreset.most_held)
        assert coreset.held <= (1 + BUFFER) * 32
        coreset.finish()
        assert coreset.held == 32
    assert max(most) <= (2 + BUFFER) * 32
    assert most[1] == most[2]


def test_few_rows_are_all_kept_in_order() -> None:
    coreset = Coreset(100, 2)
    rows = torch.randn(30, 2)
    for image in range(3):
        coreset.add(rows[10 * image : 10 * image + 10], image)
    kept, origins = coreset.finish()
    assert torch.equal(kept, rows)
    assert origins.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert coreset.radius == 0


def test_centres_are_the_greedy_ones_and_at_most_twice_as_far_as_the_best() -> None:
    rows = torch.randn(12, 2)
    mean = rows.mean(0)
    slow = [min(range(12), key=lambda place: float(torch.dist(rows[place], mean)))]
    while len(slow) < 4:
        slow.append(max(range(12), key=lambda place: min(float(torch.dist(rows[place], rows[one])) for one in slow)))
    chosen, near = k_centres(rows, 4)
    assert chosen.tolist() == slow
    assert near == pytest.approx(farthest(rows, rows[slow]), rel=1e-4)
    best = min(farthest(rows, rows[list(places)]) for places in combinations(range(12), 4))
    assert near <= 2 * best + 1e-5


def test_equal_rows_are_kept_once() -> None:
    chosen, near = k_centres(torch.tensor([[1.0, 2], [1, 2], [3, 4], [3, 4]]), 3)
    assert len(chosen) == 2
    assert near == 0


def test_wide_rows_are_compared_in_a_projection_and_kept_whole() -> None:
    dim = 4 * PROJECTED
    centres = 10 * torch.randn(5, dim)
    coreset = Coreset(5, dim, seed=1)
    for image in range(60):
        coreset.add(centres + 0.1 * torch.randn(5, dim), image)
    kept, _ = coreset.finish()
    assert kept.shape == (5, dim)
    assert sorted(nearest(kept, centres)[1].tolist()) == [0, 1, 2, 3, 4]
