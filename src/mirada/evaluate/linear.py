"""The linear probe: logistic regression on frozen features, as in CLIP's evaluation (arXiv:2103.00020, appendix A.3):
scikit-learn's L-BFGS, with the strength of the penalty chosen on a held-out part of the training images."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mirada.data.images import Progress
from mirada.data.splits import portions
from mirada.evaluate.accuracy import shares_right
from mirada.evaluate.features import Labelled

__all__ = ["hold_out", "linear", "standardised"]

STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(-10, 5))  # of C, from 1e-5 to 100
PATIENCE = 3  # so many further strengths that are no better end the search: weak penalties take long, and overfit
ITERATIONS = 1000  # of L-BFGS at most
AT_ONCE = 4096  # rows that are held in float64


def linear(
    known: Labelled, asked: Labelled, classes: int, *, seed: int = 0, on_progress: Progress | None = None
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """("accuracy", share right), ("balanced_accuracy", mean over classes), ("loss", mean cross-entropy) of `asked`, and
    ("C", the strength that was chosen).

    The logistic regression minimises ||w||^2 / 2 + C * (sum of cross-entropies) over features with mean 0 and deviation
    1. C is the one of `STRENGTHS` that is most often right on a fifth of each class of `known`, held out by `seed`; the
    smaller one if two are, and 1 if there is nothing to hold out. It is then fitted to all of `known`, which must have
    two classes or more.
    """
    labels = known.labels.numpy()
    fitted, held_out = hold_out(labels, seed)
    best = choose_strength(known, fitted, held_out, on_progress) if len(held_out) else 1.0
    train, test = standardised(known.features.numpy(), asked.features.numpy())
    log_shares = _log_shares(_fit(train, labels, best), test, classes)
    yield from shares_right(log_shares.argmax(1), asked.labels)
    yield "loss", float(F.nll_loss(log_shares, asked.labels))
    yield "C", best


def choose_strength(
    known: Labelled, fitted: NDArray[np.int64], held_out: NDArray[np.int64], on_progress: Progress | None = None
) -> float:
    """The C with which a fit to the rows `fitted` is most often right on the rows `held_out`."""
    features, labels = known.features.numpy(), known.labels.numpy()
    train, test = standardised(features[fitted], features[held_out])
    scores: list[float] = []
    model = None
    for number, strength in enumerate(STRENGTHS):
        model = _fit(train, labels[fitted], strength, model)  # from the last one, which is near
        scores.append(float(np.mean(model.predict(test) == labels[held_out])))
        if on_progress is not None:
            on_progress("fitting", number + 1, len(STRENGTHS))
        if number - int(np.argmax(scores)) >= PATIENCE and scores[-1] < max(scores):
            break
    return STRENGTHS[int(np.argmax(scores))]


def hold_out(labels: NDArray[np.int64], seed: int, share: float = 0.2) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows to fit to and those held out: `share` of each class, one at least, but not a class's only one."""
    random = np.random.default_rng(seed)
    parts: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        count = portions(len(members), (1 - share, share))[0]
        parts[0].append(members[:count])
        parts[1].append(members[count:])
    return np.sort(np.concatenate(parts[0])), np.sort(np.concatenate(parts[1]))


def standardised(
    train: NDArray[np.float32], test: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Both, shifted and scaled so that each column of `train` has mean 0 and deviation 1; constant ones become 0."""
    mean = train.mean(0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for part in _pieces(train):
        squares += ((part - mean) ** 2).sum(0)
    deviation = np.sqrt(squares / len(train))
    constant = deviation <= 1e-6 * np.abs(mean)  # rounding
    scale = np.where(constant, 0, 1 / np.where(constant, 1, deviation))
    scaled = np.empty_like(train), np.empty_like(test)
    for whole, into in zip((train, test), scaled, strict=True):
        for part, place in zip(_pieces(whole), _pieces(into), strict=True):
            place[:] = (part - mean) * scale
    return scaled


def _pieces(rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Views of some rows at a time, so that float64 of all of them is never held."""
    return [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]


def _fit(features: NDArray[np.float32], labels: NDArray[np.int64], strength: float, start: Any = None) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True) if start is None else start
    model.C = strength
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many iterations the answers hardly change
        return model.fit(features, labels)


def _log_shares(model: Any, features: NDArray[np.float32], classes: int) -> torch.Tensor:
    """Log probabilities (M, classes); nearly 0 for a class that the training images lack."""
    shares = np.full((len(features), classes), -np.inf, np.float64)
    shares[:, model.classes_] = model.predict_log_proba(features)
    return torch.from_numpy(shares).clamp(min=-100)
