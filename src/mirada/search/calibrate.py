"""When is a hit a hit? Cosines of words and pictures have no fixed zero, and a search always has a nearest picture.

Two questions are asked of every search by words, each against what is known to be otherwise.

Do the words mean anything to the model? Invented words stand against everyday ones: they fall into more pieces of the
tokenizer's vocabulary, which was made by compressing real texts (Sennrich et al. 2016, arXiv:1508.07909), their vectors
have other neighbours, and the best picture stands out less. A logistic regression weighs the three, and a query has to
reach what hardly any invented one does.

Is the picture about them? Either it stands out of the query's scores with all pictures, as few of so many strangers
would; or the query stands out of the picture's scores with many other texts, which also holds where all pictures are
alike. The second is the correction for pictures that are near to everything (Bogolin et al. 2022, arXiv:2112.12777).
"""

import io
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirada.model import Model
from mirada.search.vectors import product

__all__ = ["FALSE_POSITIVES", "Background", "invented", "measure", "pieces", "rare", "standing_out"]

FALSE_POSITIVES = 0.03  # share of invented queries that may count as meant
STRANGERS = 10  # pictures that may stand out so much by chance
AMONG_TEXTS = 2.0  # standard deviations above a picture's scores with other texts
INVENTED = 256
NEIGHBOURS = 5
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxz", "aeiouy"

Vector = NDArray[np.float32]


class Background(NamedTuple):
    """What an index is like where nothing matches.

    Attributes:
        invented, known: (B, D) unit vectors of invented and of everyday words; none where the model sees pictures only.
        image_mean: (D,) of the index's pictures.
        weights: (4,) of the three features and of one.
        enough: what the weighted sum of a query has to reach.
        rows: how many pictures there were.
    """

    invented: Vector
    known: Vector
    image_mean: Vector
    weights: Vector
    enough: float
    rows: int

    @property
    def text_mean(self) -> Vector:
        """(D,) of all its texts."""
        texts = np.concatenate([self.invented, self.known])
        mean: Vector = texts.mean(0) if len(texts) else np.zeros_like(self.image_mean)
        return mean

    def meaning(self, texts: Vector, pieces: Vector, outstanding: Vector) -> Vector:
        """How sure it is that each of these queries means something, from 0 to 1; at 0.5 it is `enough`."""
        features = _features(texts, pieces, outstanding, self.invented, self.known)
        result: Vector = 1 / (1 + np.exp(np.clip(self.enough - features @ self.weights, -50, 50)))
        return result

    def about(self, scores: Vector, outstanding: Vector, pictures: Vector) -> NDArray[np.bool_]:
        """Which pictures (k, D), with these scores, are about a query of words."""
        texts = np.concatenate([self.invented, self.known])
        others = product(pictures, texts.T)
        apart = (scores - others.mean(1)) / np.maximum(others.std(1), 1e-6)
        result: NDArray[np.bool_] = (outstanding >= rare(self.rows)) | (apart >= AMONG_TEXTS)
        return result

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(
            buffer, invented=self.invented.astype(np.float16), known=self.known.astype(np.float16),
            image_mean=self.image_mean, weights=self.weights, numbers=np.array([self.enough, self.rows], np.float64),
        )  # fmt: skip
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Background":
        """Raises ValueError, KeyError or OSError for what is none."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            enough, rows = stored["numbers"].tolist()
            made_up, known = (stored[name].astype(np.float32) for name in ("invented", "known"))
            return cls(made_up, known, stored["image_mean"], stored["weights"], enough, int(rows))


def invented(count: int = INVENTED, seed: int = 0) -> list[str]:
    """Texts that mean nothing in any language: letters at random, syllables at random, keys at random."""
    draw = random.Random(seed)

    def letters() -> str:
        return "".join(draw.choice(CONSONANTS + VOWELS) for _ in range(draw.randint(4, 10)))

    def syllables() -> str:
        return "".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.randint(2, 4)))

    def keys() -> str:
        return "".join(draw.choice("asdfghjklqwertyuiop1234567890") for _ in range(draw.randint(5, 12)))

    kinds = (letters, syllables, keys)
    return [" ".join(kinds[number % 3]() for _ in range(draw.randint(1, 3))) for number in range(count)]


def pieces(model: Model, texts: Sequence[str]) -> Vector:
    """Into how many pieces of the vocabulary each text falls beyond the first, by its bytes; float32 (n,)."""
    assert model.tokenizer is not None
    assert model.text is not None
    padding = model.text.design.tokenizer.pad
    lengths = (model.tokenizer(["", *texts]) != padding).sum(1).numpy()
    sizes = np.array([max(1, len(text.encode("utf-8", "replace"))) for text in texts])
    result: Vector = (np.maximum(lengths[1:] - lengths[0] - 1, 0) / sizes).astype(np.float32)
    return result


def standing_out(scores: Vector, among: Vector) -> Vector:
    """How many robust standard deviations scores lie above the middle of a query's scores with many pictures. The
    deviation is that of the lower half, where a query has no matches."""
    middle = np.median(among, -1, keepdims=True)
    deviation = 1.4826 * np.median(np.maximum(middle - np.sort(among, -1)[..., : (among.shape[-1] + 1) // 2], 0), -1,
                                   keepdims=True)  # fmt: skip
    result: Vector = (scores - middle) / np.maximum(deviation, 1e-4)
    return result


def rare(rows: int) -> float:
    """How many standard deviations above the middle no more than a few of so many normal numbers lie."""
    from scipy.special import ndtri

    return max(1.0, float(ndtri(1 - min(0.5, STRANGERS / max(1, rows)))))


def measure(
    made_up: Vector,
    known: Vector,
    fallen: tuple[Vector, Vector],
    best: tuple[Vector, Vector],
    matrix: Vector,
    rows: int,
) -> Background:
    """The background of an index.

    Args:
        made_up, known: (B, D) unit vectors of invented and everyday words.
        fallen: the `pieces` of both.
        best: their best scores in the index.
        matrix: (n, D) all pictures, or a sample.
        rows: how many pictures there are.
    """
    from sklearn.linear_model import LogisticRegression

    image_mean = matrix.mean(0) if len(matrix) else np.zeros(made_up.shape[1], np.float32)
    if not len(made_up) or not len(matrix):
        return Background(made_up, known, image_mean, np.zeros(4, np.float32), 0.0, rows)
    features = np.concatenate([
        _features(texts, pieces, standing_out(top[:, None], texts @ matrix.T)[:, 0], made_up, known, among=number)
        for number, (texts, pieces, top) in enumerate(zip((made_up, known), fallen, best, strict=True))
    ])  # fmt: skip
    labels = np.repeat([0, 1], [len(made_up), len(known)])
    centre, spread = features[:, :3].mean(0), np.maximum(features[:, :3].std(0), 1e-6)
    fitted = LogisticRegression().fit((features[:, :3] - centre) / spread, labels)
    slopes = fitted.coef_[0] / spread
    weights = np.append(slopes, fitted.intercept_[0] - slopes @ centre).astype(np.float32)
    enough = float(np.quantile((features @ weights)[labels == 0], 1 - FALSE_POSITIVES))
    return Background(made_up, known, image_mean, weights, enough, rows)


def _features(
    texts: Vector, pieces: Vector, outstanding: Vector, made_up: Vector, known: Vector, among: int | None = None
) -> Vector:
    """(n, 4): pieces, nearness to known words over nearness to invented ones, outstanding, and one. `among` says to
    which of both the texts belong, so that none is its own neighbour."""
    near = []
    for number, group in enumerate((made_up, known)):
        nearest = -np.sort(-product(texts, group.T), 1)
        near.append(nearest[:, 1 if number == among else 0 :][:, :NEIGHBOURS].mean(1))
    return np.stack([pieces, near[1] - near[0], outstanding, np.ones_like(outstanding)], 1).astype(np.float32)
