"""Average precision against a plain loop, ties included."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import mirada.evaluate.retrieval as module
from mirada.errors import MiradaError
from mirada.evaluate.features import Labelled
from mirada.evaluate.retrieval import average_precision, queries, retrieval


def plain(similarity: list[float], relevant: list[bool]) -> float:
    """Precision at the rank of each relevant image, averaged; tied images are ranked together."""
    found = []
    for score, good in zip(similarity, relevant, strict=True):
        if good:
            above = [other for value, other in zip(similarity, relevant, strict=True) if value >= score]
            found.append(sum(above) / len(above))
    return sum(found) / len(found)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12))
def test_average_precision(rows: list[tuple[int, bool]]) -> None:
    rows = [*rows, (2, True)]
    similarity, relevant = [float(score) for score, _ in rows], [good for _, good in rows]
    found = average_precision(torch.tensor([similarity]), torch.tensor([relevant]))
    assert float(found[0]) == pytest.approx(plain(similarity, relevant))


def test_scikit_learn_agrees() -> None:
    from sklearn.metrics import average_precision_score

    similarity, relevant = torch.randn(5, 40), torch.rand(5, 40) < 0.3
    expected = [average_precision_score(r.numpy(), s.numpy()) for s, r in zip(similarity, relevant, strict=True)]
    assert average_precision(similarity, relevant).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
def test_every_image_is_asked_among_the_others(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    images = Labelled(torch.randn(24, 5), torch.tensor([0, 1, 2] * 7 + [3, 4, 4]))
    precisions, first = [], []
    for place in range(24):
        others = [other for other in range(24) if other != place]
        cosines = [float(F.cosine_similarity(images.features[place], images.features[other], 0)) for other in others]
        relevant = [bool(images.labels[other] == images.labels[place]) for other in others]
        if any(relevant):
            precisions.append(plain(cosines, relevant))
            first.append(relevant[cosines.index(max(cosines))])
    assert len(precisions) == 23 == int(queries(images.labels).sum())
    found = dict(retrieval(images))
    assert found["mAP"] == pytest.approx(sum(precisions) / 23)
    assert found["R@1"] == pytest.approx(sum(first) / 23)


def test_the_best_and_what_says_nothing() -> None:
    labels = torch.arange(40) // 10  # sorted by class, as files come
    assert dict(retrieval(Labelled(torch.eye(4)[labels], labels))) == {"mAP": 1.0, "R@1": 1.0}
    noise = 1e-7 * torch.randn(40, 64)  # rounding is no knowledge either
    for features in (torch.ones(40, 64), torch.ones(40, 64) + noise, torch.zeros(40, 64)):
        found = dict(retrieval(Labelled(features, labels)))
        assert found["mAP"] == pytest.approx(9 / 39)
        assert found["R@1"] == pytest.approx(9 / 39)


def test_nothing_to_be_found() -> None:
    with pytest.raises(MiradaError, match="No two of these images are of one class"):
        dict(retrieval(Labelled(torch.randn(3, 2), torch.arange(3))))
    with pytest.raises(MiradaError, match="No two of these images are of one class"):
        dict(retrieval(Labelled(torch.randn(1, 2), torch.tensor([0]))))
