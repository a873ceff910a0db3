"""Weighted nearest neighbours against a plain loop, and the probe on real files."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mirada.errors import MiradaError, Misuse
from mirada.evaluate.knn import knn, votes
from mirada.evaluate.predict import Encoded
from mirada.evaluate.run import evaluate

MODEL = "vit-pico/8(image_size=24)"


def test_votes_are_the_papers() -> None:
    known, labels, asked = torch.randn(30, 5), torch.arange(30) % 4, torch.randn(7, 5)
    found = votes(known, labels, asked, 4, neighbours=6, temperature=0.2)
    for row, vector in zip(found, asked, strict=True):
        cosines = [float(F.cosine_similarity(vector, other, 0)) for other in known]
        nearest = sorted(range(30), key=lambda place: -cosines[place])[:6]
        share = [sum(math.exp(cosines[i] / 0.2) for i in nearest if labels[i] == c) for c in range(4)]
        torch.testing.assert_close(row, torch.tensor(share) / sum(share))


def test_fewer_images_than_neighbours_all_vote() -> None:
    found = votes(torch.eye(3), torch.tensor([0, 1, 1]), torch.eye(3)[:1], 2, temperature=1.0)
    assert found[0].tolist() == pytest.approx([math.e / (math.e + 2), 2 / (math.e + 2)])


def test_images_without_a_label_do_not_vote() -> None:
    known = Encoded(np.arange(2), np.array([-1, 1]), torch.eye(2))
    asked = Encoded(np.arange(1), np.array([0]), torch.eye(2)[:1])
    assert knn(known, asked, 2).logits.argmax(1).tolist() == [1]
    with pytest.raises(MiradaError, match="needs a train split with labels"):
        knn(known._replace(labels=np.array([-1, -1])), asked, 2)


def test_a_model_without_a_head_is_measured(folder_of_shapes: Path) -> None:
    torch.manual_seed(0)
    result = evaluate(MODEL, str(folder_of_shapes), probe="knn")
    assert (result["probe"], result["split"], result["n"]) == ("knn", "val", 18)
    assert result["metrics"]["accuracy"] >= 0.9  # three colours
    assert result["interval"][0] < result["metrics"]["accuracy"]
    assert result["notes"] == ["72 of these images are compared with, and the other 18 measured."]


def test_a_split_is_measured_by_the_train_split(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    folder = new_shapes(6)
    for group in list(folder.iterdir()):
        for number, file in enumerate(sorted(group.iterdir())):
            target = tmp_path / "data" / ("train" if number < 4 else "test") / group.name
            target.mkdir(parents=True, exist_ok=True)
            file.rename(target / file.name)
    result = evaluate(MODEL, str(tmp_path / "data"), probe="knn")
    assert (result["split"], result["n"], result["notes"]) == ("test", 6, [])
    with pytest.raises(MiradaError, match="no split 'val': there is"):
        evaluate(MODEL, str(tmp_path / "data"), probe="knn", split="val")


def test_what_cannot_be_compared(folder_of_shapes: Path, new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="compare images with themselves: choose val or test"):
        evaluate(MODEL, str(folder_of_shapes), probe="knn", split="all")
    with pytest.raises(Misuse, match="no probe 'luck': choose accuracy or knn"):
        evaluate(MODEL, str(folder_of_shapes), probe="luck")
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in next(iter(sorted(new_shapes(3).iterdir()))).iterdir():
        file.rename(flat / file.name)
    with pytest.raises(MiradaError, match="These images have no labels"):
        evaluate(MODEL, str(flat), probe="knn")
