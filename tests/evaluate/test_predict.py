"""The pixels that scores are made of: fast by default, those of the checkpoint's own library on demand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import cbook
from typer.testing import CliRunner

import mirada.evaluate.predict
from mirada.backbones import build
from mirada.classify import classify
from mirada.cli.main import app
from mirada.data.decode import decode
from mirada.data.sources import list_images
from mirada.evaluate.predict import evaluation_images
from mirada.evaluate.run import evaluate
from mirada.model import Model
from mirada.preprocess import Preprocess

PHOTOGRAPH = Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))  # 512x600
CLASSES = ["cat", "dog", "admiral"]


@pytest.fixture
def model() -> Model:
    name = "vit-pico/8(depth=1, image_size=32)"
    head = torch.nn.Linear(64, 3)
    torch.nn.init.normal_(head.weight, std=0.05)
    return Model(name, build(name), Preprocess((32, 32), box=(36, 36)), head=head, classes=CLASSES).eval()


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> str:
    return str(model.save(tmp_path / "model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(PHOTOGRAPH, tmp_path / "data" / name / "photograph.jpg")
    return tmp_path / "data"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How large each file had to be decoded at least; None: in full."""
    found: list[int | None] = []

    def spy(data, *, at_least=None):
        found.append(at_least)
        return decode(data, at_least=at_least)

    monkeypatch.setattr(mirada.evaluate.predict, "decode", spy)
    return found


def test_exact_pixels_are_those_of_the_whole_file(model: Model) -> None:
    source = list_images([PHOTOGRAPH])
    whole = model.preprocess.pixels(decode(PHOTOGRAPH.read_bytes()))
    exact, fast = (evaluation_images(model, source, exact_pixels=exact).get([0])[0][0] for exact in (True, False))
    assert exact.equal(whole)
    assert not fast.equal(whole)
    assert (fast.float() - whole.float()).abs().mean() < 2  # grey levels


def test_classify_with_exact_pixels_says_what_logits_says(model: Model, folder: str) -> None:
    expected = model.logits(PHOTOGRAPH).softmax(-1)[0]
    (exact,), _, _ = classify(folder, [PHOTOGRAPH], exact_pixels=True)
    (fast,), _, _ = classify(folder, [PHOTOGRAPH])
    scores = [{label["label"]: label["score"] for label in answer["labels"]} for answer in (exact, fast)]
    expected_scores = dict(zip(CLASSES, expected.tolist(), strict=True))
    assert scores[0] == pytest.approx(expected_scores, abs=2e-6)
    assert scores[1] == pytest.approx(expected_scores, abs=0.1)
    assert scores[1] != scores[0]


def test_evaluate_with_exact_pixels(folder: str, data: Path, asked: list[int | None]) -> None:
    for exact, at_least in ((False, 72), (True, None)):
        asked.clear()
        assert evaluate(folder, str(data), exact_pixels=exact)["n"] == 3
        assert asked
        assert set(asked) == {at_least}


@pytest.mark.parametrize("command", ["evaluate", "classify"])
def test_the_flag(command: str, folder: str, data: Path, asked: list[int | None]) -> None:
    for flags, at_least in (([], 72), (["--exact-pixels"], None)):
        asked.clear()
        result = CliRunner().invoke(app, [command, folder, str(data), *flags, "--json"])
        assert result.exit_code == 0, result.stderr
        assert asked
        assert set(asked) == {at_least}


def test_what_must_be_read_whole_is(model: Model, asked: list[int | None]) -> None:
    model.preprocess = Preprocess((32, 32), "none")
    pixels = evaluation_images(model, list_images([PHOTOGRAPH])).get(np.array([0]))[0][0]
    assert set(asked) == {None}
    assert pixels.equal(model.preprocess.pixels(decode(PHOTOGRAPH.read_bytes())))
