"""Two columns of a table become a model that classifies and finds by words."""

import csv
import json
from pathlib import Path

import pytest
from commands import TINY, document, refused, run

SPANISH = {"red": "rojo", "green": "verde", "blue": "azul"}
WORDS = ["--objective", "clip(width=32, depth=1, num_heads=2, dim=32, vocabulary=300, context=8)"]


@pytest.fixture(scope="module")
def table(folder_of_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two columns: a path and a caption, of which some are missing."""
    file = tmp_path_factory.mktemp("words") / "shapes.csv"
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "caption", "caption_es"])
        for number, image in enumerate(sorted(folder_of_shapes.rglob("*.png"))):
            colour = image.parent.name
            row = ["", ""] if number in (3, 7, 35, 62) else [f"a {colour} disc", f"un disco {SPANISH[colour]}"]
            writer.writerow([image, *row])
    return file


@pytest.fixture(scope="module")
def words_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "words"
    result = run("train", table, *TINY, *WORDS, "--steps", 80, "--lr", "3e-3", "--out", out)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert "have no caption and take no part" in result.stderr
    assert "val text to image R@1 " in result.stdout
    assert f"use it  mirada classify {out} IMAGES --labels 'cat,dog'" in result.stdout
    return out


def test_from_a_table_to_words(words_run: Path, folder_of_shapes: Path, tmp_path: Path) -> None:
    report = (words_run / "report.html").read_text(encoding="utf-8")
    assert "of the captions find their picture first among the" in report
    labels = ",".join(f"a {colour} disc|un disco {spanish}" for colour, spanish in SPANISH.items())
    found = document("classify", words_run, folder_of_shapes, "--labels", labels, "--templates", "none")
    right = [Path(answer["path"]).parent.name in answer["labels"][0]["label"] for answer in found]
    assert sum(right) >= 80
    template = tmp_path / "template.txt"
    template.write_text("a {} disc\n", encoding="utf-8")
    result = document("evaluate", words_run, folder_of_shapes, "--probe", "zero-shot", "--split", "all",
                      "--templates", template)  # fmt: skip
    assert result["metrics"]["accuracy"] >= 0.8


def test_retrieval_both_ways(words_run: Path, table: Path) -> None:
    result = document("evaluate", words_run, table, "--probe", "retrieval", "--split", "all")
    assert result["n"] == 86
    assert result["metrics"]["text_to_image/R@1"] >= 0.8
    printed = run("evaluate", words_run, table, "--probe", "retrieval", "--split", "all").stdout
    assert printed.startswith("text to image: R@1 ")
    assert "image to text: R@1 " in printed


def test_fine_tuning_and_blending(words_run: Path, table: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    document("train", table, "--init", words_run, *WORDS, "--steps", 12, "--batch", 16, "--chunk", 8, "--lora", 2,
             "--out", tuned)  # fmt: skip
    rows = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    assert 0.5 < [row["val/same_everyday_word"] for row in rows if "val/same_everyday_word" in row][-1] <= 1
    blended = document("blend", words_run, tuned, "--weight", 0.5, "--out", tmp_path / "blend")
    assert blended["out"] == str(tmp_path / "blend")
    result = document("evaluate", blended["out"], table, "--probe", "retrieval", "--split", "all")
    assert result["metrics"]["text_to_image/R@1"] >= 0.8


@pytest.mark.parametrize("objective", ["clip", "siglip"])
def test_images_without_captions_are_refused(objective: str, folder_of_shapes: Path, tmp_path: Path) -> None:
    said = refused(1, "train", folder_of_shapes, *TINY, "--objective", objective, "--steps", 1, "--out", tmp_path / "r")
    assert "training images has a caption: put a .txt beside each image" in said
    assert not (tmp_path / "r").exists()


def test_the_other_loss_is_refused_before_the_run_begins(words_run: Path, table: Path, tmp_path: Path) -> None:
    said = refused(2, "train", table, "--init", words_run, "--objective", "siglip", "--steps", 1,
                   "--out", tmp_path / "r")  # fmt: skip
    assert "train it with the objective clip, not siglip" in said
    assert not (tmp_path / "r").exists()


def test_the_same_seed_is_the_same_run(table: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        document("train", table, *TINY, *WORDS, "--steps", 6, "--seed", 3, "--out", tmp_path / name)
    one, two = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert one == two
