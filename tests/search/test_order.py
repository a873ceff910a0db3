"""Duplicates, heaps and the map: what is put in on purpose is found."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from shapes import shape_picture

from mirada.search import duplicates
from mirada.search.clusters import heaps
from mirada.search.duplicates import duplicate_groups, hamming
from mirada.search.index import Index
from mirada.search.picture import perceptual_hash
from mirada.search.places import places


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def scene(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)


def test_hashes_bear_edits_and_tell_scenes_apart() -> None:
    hashes = [perceptual_hash(scene(seed)) for seed in range(30)]
    for seed in range(30):
        image = scene(seed)
        edits = [image.resize((50, 40)), ImageEnhance.Brightness(image).enhance(0.8), image.convert("L")]
        for edit in edits:
            assert bin((hashes[seed] ^ perceptual_hash(edit)) & (1 << 64) - 1).count("1") <= 6
    numbers = np.array(hashes)
    apart = hamming(numbers[:, None].repeat(30, 1).reshape(-1), np.tile(numbers, 30)).reshape(30, 30)
    assert apart[~np.eye(30, dtype=bool)].min() > 12
    expected = [[bin((a ^ b) & (1 << 64) - 1).count("1") for b in hashes] for a in hashes]
    np.testing.assert_array_equal(apart, expected)


@pytest.mark.parametrize("bits", [0, 1, 3])
def test_groups_are_those_of_comparing_all_pairs(bits: int) -> None:
    draw = np.random.default_rng(bits)
    hashes = draw.integers(-(2**63), 2**63 - 1, 300)
    vectors = unit(draw.standard_normal((300, 32)))
    for place in range(0, 60, 3):  # two that are alike in both, and one in its hash alone
        flipped = np.bitwise_xor.reduce([np.int64(1) << np.int64(bit) for bit in draw.choice(63, bits, False)] or [0])
        hashes[place + 1] = hashes[place + 2] = hashes[place] ^ flipped
        vectors[place + 1] = vectors[place]
    assert duplicate_groups(hashes, vectors) == [[place, place + 1] for place in range(0, 60, 3)]
    assert duplicate_groups(hashes[:1], vectors[:1]) == []


def test_crowds_of_like_pictures_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    vectors = unit(draw.standard_normal((1000, 64))).astype(np.float16)
    hashes = draw.integers(-(2**63), 2**63 - 1, 1000)
    vectors[:600], hashes[:600] = vectors[0], hashes[0]
    monkeypatch.setattr(duplicates, "AT_ONCE", 1000)
    tracemalloc.start()
    found = duplicate_groups(hashes, vectors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [list(range(600))]
    assert peak < 90e6  # 37,000 pairs in each of four bands


def test_pictures_that_are_all_alike_have_to_be_nearer_to_be_the_same() -> None:
    """Hashes of strangers differ in 16 bits at least, or in 6; a pair that differs in 9 is only the same among the
    former."""
    draw = np.random.default_rng(0)
    vectors = unit(draw.standard_normal((300, 32)))
    vectors[1] = vectors[0]
    far = draw.integers(-(2**63), 2**63 - 1, 300)
    near = np.bitwise_xor.reduce([np.int64(1) << draw.integers(0, 20, 300) for _ in range(6)])
    for hashes, same in ((far, True), (near, False)):
        hashes[1] = hashes[0] ^ np.int64((1 << 9) - 1 << 40)
        assert (duplicate_groups(hashes, vectors) == [[0, 1]]) is same


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_copies_are_no_strangers_however_many_there_are(count: int) -> None:
    draw = np.random.default_rng(count)
    hashes = draw.integers(-(2**63), 2**63 - 1, count).repeat(2)
    vectors = unit(draw.standard_normal((count, 256))).repeat(2, 0)
    hashes[1::2] ^= np.int64(0b10010010010101 << 20)  # 6 bits
    vectors[1::2] = unit(vectors[1::2] + 0.02 * draw.standard_normal((count, 256)))  # a cosine of about 0.95
    assert duplicate_groups(hashes, vectors) == [[place, place + 1] for place in range(0, 2 * count, 2)]


def test_heaps_are_found_and_named() -> None:
    draw = np.random.default_rng(0)
    centres = unit(draw.standard_normal((4, 32)))
    labels = draw.integers(4, size=400)
    vectors = unit(centres[labels] + 0.05 * draw.standard_normal((400, 32)))
    words = unit(np.concatenate([centres, draw.standard_normal((6, 32))]) + 0.3)
    names = [f"word {number}" for number in range(10)]
    found = heaps(vectors, names, words, 4)
    assert [len(heap.places) for heap in found] == sorted(np.bincount(labels).tolist(), reverse=True)
    for heap in found:
        assert len(set(labels[heap.places])) == 1
        assert heap.name == f"word {labels[heap.places[0]]}"
    assert {heap.name for heap in heaps(vectors)} == {""}
    assert heaps(vectors[:0]) == []
    assert len(heaps(vectors[:1])) == 1


def test_the_map_keeps_neighbours_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirada.search.places.ANCHORS", 60)  # so that most go between others
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    vectors = unit(np.eye(3, 24)[labels] + 0.1 * draw.standard_normal((120, 24)))
    plane = places(vectors)
    assert plane.shape == (120, 2)
    assert np.abs(plane).max() <= 1
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2) + 9 * np.eye(120)
    assert (labels[distance.argmin(1)] == labels).mean() > 0.95
    np.testing.assert_array_equal(plane, places(vectors))
    assert places(vectors[:2]).shape == (2, 2)


def test_the_index_puts_itself_in_order(new_shapes: Callable[[int], Path], model_folder: str, tmp_path: Path) -> None:
    folder = new_shapes(6)
    shape_picture("red", 1).save(folder / "copy.png")
    shape_picture("red", 1).save(folder / "again.bmp")
    index, _ = Index.update(folder, tmp_path / "index", model=model_folder)
    same = [{Path(row["path"]).name for row in group} for group in index.duplicates()]
    assert {"copy.png", "again.bmp", "001.png"} in [names & {"copy.png", "again.bmp", "001.png"} for names in same]
    clusters = index.clusters(3)
    assert sorted(number for _, ids in clusters for number in ids) == sorted(index.vectors.ids.tolist())
    assert len({name for name, _ in clusters}) == len(clusters)
    first = index.map()
    assert {number for number, _, _ in first} == set(index.vectors.ids.tolist())
    assert Index(index.where).map() == first
    lonely = index.outliers(3)
    matrix = index.vectors.matrix
    nearest = -np.sort(-(matrix @ matrix.T - 9 * np.eye(20)), 1)[:, :10].mean(1)
    np.testing.assert_allclose([hit.score for hit in lonely], np.sort(nearest)[:3], atol=1e-3)
