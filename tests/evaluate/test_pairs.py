"""Retrieval between images and texts against a slow loop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from shapes import make_shapes
from torch import Tensor
from torch.nn import functional as F

from mirada.backbones import build
from mirada.data.sources import open_data
from mirada.errors import MiradaError
from mirada.evaluate import pairs as module
from mirada.evaluate.accuracy import wilson_interval
from mirada.evaluate.pairs import pair_retrieval, recalls
from mirada.evaluate.predict import evaluation_images
from mirada.evaluate.run import evaluate
from mirada.loading import load
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign


def slowly(asked: Tensor, known: Tensor, right: list[set[int]], most: int) -> float:
    found = 0
    for row, answers in zip(asked, right, strict=True):
        scores = (known @ row).tolist()
        # wrong ones first among equals
        order = sorted(range(len(known)), key=lambda one: (-scores[one], one in answers))
        found += any(one in answers for one in order[:most])
    return found / len(asked)


@pytest.mark.parametrize("held", [1 << 24, 7])
def test_as_a_slow_loop(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", held)
    image = F.normalize(torch.randn(12, 5), dim=1)
    text = F.normalize(torch.randn(30, 5), dim=1)
    text[:6] = image[:6]
    text[3] = text[4]  # a tie
    owner = torch.arange(30) % 12
    pairs = torch.stack([torch.arange(30), owner], 1)
    pairs = torch.cat([pairs, torch.tensor([[0, 7], [1, 2]])])  # texts of two images
    found = dict(recalls(image, text, pairs))
    of_text = [{int(i) for t, i in pairs if t == row} for row in range(30)]
    of_image = [{int(t) for t, i in pairs if i == row} for row in range(12)]
    for most in (1, 5, 10):
        assert found[f"text_to_image/R@{most}"] == pytest.approx(slowly(text, image, of_text, most))
        assert found[f"image_to_text/R@{most}"] == pytest.approx(slowly(image, text, of_image, most))


def test_all_alike_is_no_success() -> None:
    same = F.normalize(torch.ones(20, 4), dim=1)
    found = dict(recalls(same, same, torch.arange(20)[:, None].expand(-1, 2)))
    assert set(found.values()) == {0.0}


def test_the_precision_of_training_makes_no_ties() -> None:
    random = torch.Generator().manual_seed(0)
    centre = torch.randn(64, generator=random)
    image, text = (F.normalize(centre + torch.randn(500, 64, generator=random), dim=1) for _ in range(2))
    text = F.normalize(text + 0.3 * image, dim=1)
    pairs = torch.arange(500)[:, None].expand(-1, 2)
    expected = dict(recalls(image, text, pairs))
    with torch.autocast("cpu", torch.bfloat16):
        assert dict(recalls(image, text, pairs)) == expected


def test_no_numbers_are_no_success(tmp_path: Path) -> None:
    right = torch.arange(20)[:, None].expand(-1, 2)
    found = dict(recalls(torch.full((20, 4), torch.nan), F.normalize(torch.randn(20, 4), dim=1), right))
    assert set(found.values()) == {0.0}
    model, data = two_towers(tmp_path)
    for part, message in (
        ("backbone", "The features of '.*' are not finite"),
        ("text", "The features of captions are"),
    ):
        broken = load(model)
        with torch.no_grad():
            next(broken.get_submodule(part).parameters()).fill_(torch.nan)
        broken.save(tmp_path / part)
        with pytest.raises(MiradaError, match=message):
            evaluate(str(tmp_path / part), str(data), probe="retrieval")


def two_towers(tmp_path: Path) -> tuple[Path, Path]:
    """A random model, and a folder in which one image has no caption and two share theirs."""
    make_shapes(tmp_path / "data", 3)
    for number, file in enumerate(sorted((tmp_path / "data").rglob("*.png"))[1:]):
        file.with_suffix(".txt").write_text(f"shape {max(number, 1)}\nforma {number}\n")
    model = Model("vit-pico/8(image_size=24)", build("vit-pico/8(image_size=24)"), Preprocess(size=(24, 24)),
                  projection=Projection(16),
                  text=TextDesign(width=16, depth=1, num_heads=2, hidden=16, dim=16))  # fmt: skip
    return model.save(tmp_path / "model"), tmp_path / "data"


def test_of_images_with_captions(tmp_path: Path) -> None:
    model, data = two_towers(tmp_path)
    result = evaluate(str(model), str(data), probe="retrieval")
    assert result["n"] == 8
    assert result["metrics"].keys() == {f"{way}/R@{most}" for way in ("text_to_image", "image_to_text")
                                        for most in (1, 5, 10)}  # fmt: skip
    assert result["metrics"]["image_to_text/R@10"] >= result["metrics"]["image_to_text/R@1"]
    texts = {f"shape {number}" for number in range(1, 8)} | {f"forma {number}" for number in range(8)}
    assert result["interval"] == list(wilson_interval(result["metrics"]["text_to_image/R@1"], len(texts)))


def test_images_that_cannot_be_read_are_not_counted(tmp_path: Path) -> None:
    model, data = two_towers(tmp_path)
    sorted(data.rglob("*.png"))[-1].write_bytes(b"broken")
    result = evaluate(str(model), str(data), probe="retrieval")
    assert (result["n"], len(result["skipped"])) == (7, 1)


def test_some_of_them(tmp_path: Path) -> None:
    model, data = two_towers(tmp_path)
    loaded = load(model)
    images = evaluation_images(loaded, open_data(data).splits["all"])
    few, asked, _ = pair_retrieval(loaded, images, limit=3)
    assert asked == 3
    assert few["image_to_text/R@10"] == 1  # there are six captions at most
    source = open_data(data).splits["all"]
    source.captions = None
    with pytest.raises(MiradaError, match=r"None of these images has a caption: put a \.txt"):
        pair_retrieval(loaded, evaluation_images(loaded, source))
    assert np.isfinite(list(few.values())).all()
