"""`mirada models` as a person meets it, on terminals of several widths."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from mirada.checkpoints.released import RELEASED
from mirada.cli import models
from mirada.cli.main import app
from mirada.loading import known_names
from mirada.preprocess import Preprocess
from mirada.shipped import SHIPPED
from mirada.text import TextDesign
from mirada.tokenizer import CANONICAL, TokenizerDesign


def shown(*arguments: str, columns: int | None = None) -> str:
    result = CliRunner(env={"COLUMNS": None if columns is None else str(columns)}).invoke(app, ["models", *arguments])
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stderr == ""
    return result.stdout


def document(*arguments: str) -> Any:
    return json.loads(shown(*arguments, "--json"))


# --- many ------------------------------------------------------------------------------------------------------------


def test_the_document_has_every_model() -> None:
    rows = document()
    assert [row["name"] for row in rows] == [*known_names(), *SHIPPED, *RELEASED]
    small = next(row for row in rows if row["name"] == "vit-s/16")
    assert {
        "name": "vit-s/16",
        "family": "vit",
        "parameters": 21_665_664,
        "dim": 384,
        "stride": 16,
    }.items() <= small.items()
    assert (small["gflops"], small["size"]) == (4.598, [224, 224])
    clip = next(row for row in rows if row["name"] == "openai:ViT-B/32")
    assert (clip["family"], clip["licence"], clip["gated"], clip["dim"]) == ("vit", "mit", False, 512)


@pytest.mark.parametrize("columns", [80, 100, 120, None])
def test_the_list_fits_the_terminal(columns: int | None) -> None:
    lines = shown(columns=columns).splitlines()
    assert columns is None or max(map(len, lines)) <= columns
    for name in [*known_names(), *RELEASED]:
        assert sum(line == name or line.startswith(f"{name} ") for line in lines) == 1, name
    row = next(line.split() for line in lines if line.startswith("vit-s/16 "))
    assert row == ["vit-s/16", "21.7M", "4.60", "224", "384", "16"]
    gated = next(line for line in lines if line.startswith("dino:dinov3_vitb16 "))
    assert gated.split()[1:] == ["85.7M", "17.9", "224", "768", "dinov3-license*"]
    where = next(number for number, line in enumerate(lines) if line.startswith("open_clip:ViT-bigG-14"))
    alone = lines[where] == "open_clip:ViT-bigG-14/laion2b_s39b_b160k"
    assert alone == (columns == 80)  # its facts stand below it
    facts = f"{lines[where]} {lines[where + 1]}".split() if alone else lines[where].split()
    assert facts[1:] == ["1.84B", *([] if columns == 80 else ["695M"]), "484", "224", "1,280", "mit"]


def test_what_one_searches_for() -> None:
    listing = shown("SigLIP2", columns=120)
    names = [name for name in RELEASED if "siglip2" in name.lower()]
    assert [line.split()[0] for line in listing.splitlines() if ":" in line.split("  ")[0]][: len(names)] == names
    assert "Sizes to train" not in listing
    assert "Published, for images and words" in listing
    assert {row["name"] for row in document("vissl:")} == {name for name in RELEASED if name.startswith("vissl:")}
    assert {row["family"] for row in document("regnety-3")} == {"regnet"}


def test_nothing_of_that_name() -> None:
    result = CliRunner().invoke(app, ["models", "siglip9"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`mirada models` lists all names" in result.stderr


# --- one -------------------------------------------------------------------------------------------------------------


def test_a_size() -> None:
    assert shown("vit-ti/4(image_size=32)").splitlines() == [
        "name        vit-ti/4(image_size=32)",
        "parameters  5,360,832",
        "work        0.36 GFLOPs (multiply-adds) for an image of 32x32 pixels",
        "features    192 numbers an image; one patch for 4x4 pixels",
        "images      32x32 pixels: the shorter side becomes 32, and the middle is cut out; bicubic, as Pillow does",
        "colours     red, green and blue from 0 to 1, minus 0.485 0.456 0.406, divided by 0.229 0.224 0.225",
    ]
    narrow = shown("vit-ti/4(image_size=32)", columns=60).splitlines()
    assert max(map(len, narrow)) <= 60
    assert [line for line in narrow if line.startswith(" ")]


@pytest.mark.parametrize(("pixels", "said"), [
    (Preprocess((224, 224), "crop", (256, 256), "bilinear"),
     "224x224 pixels: the shorter side becomes 256, and the middle is cut out; bilinear, as Pillow does"),
    (Preprocess((224, 192), "crop", (256, 219)),
     "224x192 pixels: they come to cover 256x219, and the middle is cut out; bicubic, as Pillow does"),
    (Preprocess((256, 256), "squash", None, "bilinear", "torch", antialias=False),
     "256x256 pixels: stretched to 256x256, whatever their shape; bilinear, as PyTorch does on bytes, without "
     "antialiasing"),
    (Preprocess((224, 224), "squash", (256, 256), resampler="torch-float"),
     "224x224 pixels: stretched to 256x256, whatever their shape, and the middle is cut out; bicubic, as PyTorch does"),
    (Preprocess((224, 224), "pad", fill=(0, 0, 0)),
     "224x224 pixels: made to fit into 224x224, with a border in black; bicubic, as Pillow does"),
    (Preprocess((224, 224), "pad"),
     "224x224 pixels: made to fit into 224x224, with a border of the mean colour; bicubic, as Pillow does"),
    (Preprocess((224, 224), "none"), "224x224 pixels: left as large as they are, and the middle is cut out"),
])  # fmt: skip
def test_pixels_in_words(pixels: Preprocess, said: str) -> None:
    assert models._images(json.loads(json.dumps(pixels.to_dict()))) == said


@pytest.mark.parametrize(("tokenizer", "lowers", "words", "letters"), [
    (TokenizerDesign(), True,
     "77 tokens, with id 49406 before and id 49407 after a text's own; longer texts are cut, shorter ones filled up on "
     "the right with id 0",
     "lower-cased, broken letters mended, HTML's characters read, spaces joined; CLIP's vocabulary of 49,408"),
    (TokenizerDesign(64, CANONICAL, "stored", None, 1, 1, "left"), False,
     "64 tokens, with id 1 after a text's own; longer texts are cut, shorter ones filled up on the left with id 1",
     "capitals kept, broken letters mended, HTML's characters read, underscores made spaces, punctuation left out, "
     "spaces joined; its own vocabulary of 49,408"),
    (TokenizerDesign(16, (), "stored", None, None), None,
     "16 tokens; longer texts are cut, shorter ones filled up on the right with id 0",
     "cannot be read: no vocabulary was published with it"),
])  # fmt: skip
def test_tokens_in_words(tokenizer: TokenizerDesign, lowers: bool | None, words: str, letters: str) -> None:
    text = TextDesign(tokenizer).to_dict() | {"lower_case": lowers}
    assert models._words(text) == {"words": words, "letters": letters}


def test_a_long_list_of_classes_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    row = document("vit-pico/16")[0]
    models._show(row | {"classes": [f"class {number}" for number in range(1000)], "head": 1000})
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("classes"))
    assert line.startswith("classes     1,000: class 0, class 1, ")
    assert line.endswith("class 19 ...")
    models._show(row | {"classes": [str(number) for number in range(1000)], "head": 1000})  # which say nothing
    assert "classes     1,000" in capsys.readouterr().out.splitlines()


def test_numbers() -> None:
    assert [models._three(value) for value in (0.0684, 1.253, 17.563, 190.96, 1863.285)] == [
        "0.07", "1.25", "17.6", "191", "1,863",
    ]  # fmt: skip
    assert [models._bytes(value) for value in (12345, 346_280_000, 3_940_000_000)] == ["12 KB", "346 MB", "3.9 GB"]
