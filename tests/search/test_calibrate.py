"""Queries without a meaning have no hits, and those with one keep theirs, in a space where the truth is known."""

import numpy as np
import pytest
from towers import make_model

from mirada.search.calibrate import FALSE_POSITIVES, Background, invented, measure, pieces, rare, standing_out

DIM = 64


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of fifty things, pictures of each, and the thing that each picture shows."""
    draw = np.random.default_rng(0)
    centres = unit(draw.standard_normal((50, DIM)))
    labels = draw.integers(50, size=2000)
    return centres, unit(centres[labels] + 0.1 * draw.standard_normal((2000, DIM))), labels


def texts_of(centres: np.ndarray, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and pieces of words for things, or of words for nothing where there are no centres."""
    draw = np.random.default_rng(seed)
    about = centres[draw.integers(len(centres), size=count)] if len(centres) else np.zeros((count, DIM))
    shared = np.eye(1, DIM)[0] * (0.0 if len(centres) else 0.3)  # what invented words have in common
    rows = unit(about + shared + 0.06 * draw.standard_normal((count, DIM)))
    return rows, (draw.random(count) * 0.3 + (0.0 if len(centres) else 0.4)).astype(np.float32)


@pytest.fixture(scope="module")
def background(world: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Background:
    centres, pictures, _ = world
    (made_up, fallen), (known, whole) = texts_of(centres[:0], 1, 256), texts_of(centres, 2, 180)
    best = (made_up @ pictures.T).max(1), (known @ pictures.T).max(1)
    return measure(made_up, known, (fallen, whole), best, pictures, len(pictures))


def answered(background: Background, pictures: np.ndarray, texts: np.ndarray, fallen: np.ndarray) -> np.ndarray:
    """Which pictures (n, N) are hits of each query."""
    scores = texts @ pictures.T
    outstanding = standing_out(scores, scores)
    meant = background.meaning(texts, fallen, outstanding.max(1)) >= 0.5
    about = np.stack([background.about(row, out, pictures) for row, out in zip(scores, outstanding, strict=True)])
    return about & meant[:, None]


def test_nonsense_finds_nothing_and_words_find_their_things(
    world: tuple[np.ndarray, np.ndarray, np.ndarray], background: Background
) -> None:
    centres, pictures, labels = world
    nonsense, fallen = texts_of(centres[:0], 3, 300)
    assert answered(background, pictures, nonsense, fallen).any(1).mean() <= 2 * FALSE_POSITIVES
    words, whole = texts_of(centres, 4, 50)
    meant = np.random.default_rng(4).integers(50, size=50)
    found = answered(background, pictures, words, whole)
    right = labels[None] == meant[:, None]
    assert (found & right).sum() / right.sum() > 0.9
    assert (found & ~right).sum() / (~right).sum() < 0.05


def test_a_word_finds_its_things_where_nothing_else_is(
    world: tuple[np.ndarray, np.ndarray, np.ndarray], background: Background
) -> None:
    """Nothing stands out of an index of one thing alone; the other texts tell."""
    centres, pictures, labels = world
    only = pictures[labels == 7]
    scores = unit(centres[7:8]) @ only.T
    about = background._replace(rows=len(only)).about(scores[0], standing_out(scores, scores)[0], only)
    assert about.mean() > 0.95


def test_it_is_kept_as_it_was(background: Background) -> None:
    again = Background.from_bytes(background.to_bytes())
    assert (again.rows, again.enough) == (background.rows, background.enough)
    np.testing.assert_allclose(again.known, background.known, atol=1e-3)
    np.testing.assert_array_equal(again.weights, background.weights)


def test_invented_words_are_many_and_always_the_same() -> None:
    texts = invented(300, seed=1)
    assert len(set(texts)) == 300
    assert texts == invented(300, seed=1)
    assert not set(texts) & set(invented(300, seed=2))


def test_pieces_of_real_words_are_fewer() -> None:
    model = make_model()
    real = pieces(model, ["a red car", "elephant", "mountain lake", "birthday cake"])
    assert real.max() < pieces(model, ["qzxv wkjhq", "xkcdqw", "zzqj fpwl", "h3k9d0sl"]).min()
    assert pieces(model, [""])[0] == 0


def test_how_far_out_few_strangers_lie() -> None:
    draw = np.random.default_rng(0).standard_normal((200, 5000))
    assert 5 < (draw > rare(5000)).sum(1).mean() < 20
    assert rare(3) == 1
    scores = np.concatenate([draw[:, :4000] * 0.1 + 0.2, draw[:, 4000:] * 0.1 + 0.9], 1)  # a fifth are matches
    measured = standing_out(scores, scores)
    assert measured[:, 4000:].mean() > 4
