"""`mirada inspect`, as a person uses it: on every family, and with what people get wrong."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import document, refused, run
from inspected import FAMILIES, SMALL, two_towers
from PIL import Image
from shapes import shape_picture

from mirada.backbones import build
from mirada.inspect.report.run import how_it_fits
from mirada.loading import load
from mirada.model import Model
from mirada.preprocess import Preprocess


class Parser(HTMLParser):
    """What stands in the page's tags and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [value for key, value in attrs if key in ("src", "href") and value]
        if tag == "img":
            assert values.get("alt") is not None
        if tag not in ("meta", "link", "img", "input", "br", "path", "circle", "line", "rect"):
            self.open.append(tag + (f"#{values['id']}" if tag == "script" and values.get("id") else ""))

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1].partition("#")[0] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script#data":
            self.data += data


def parsed(page: str | Path) -> tuple[str, Parser, dict[str, object]]:
    text = Path(page).read_text(encoding="utf-8")
    parser = Parser()
    parser.feed(text)
    assert not [address for address in parser.addresses if not address.startswith(("data:", "#"))]
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?https?:""", text)
    assert "default-src 'none'" in text
    return text, parser, json.loads(parser.data)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "disc.png"
    shape_picture("red", 0, 48).save(path)
    return path


@pytest.mark.parametrize("ref", FAMILIES)
def test_every_family_has_a_page(ref: str, picture: Path, tmp_path: Path) -> None:
    found = document("inspect", ref, picture, "--out", tmp_path / "report")
    assert found["page"] == str(tmp_path / "report" / "index.html")
    assert (found["images"], found["skipped"]) == ([str(picture)], [])
    assert any("random weights" in note for note in found["notes"])
    text, _, data = parsed(found["page"])
    (image,) = data["images"]  # type: ignore[misc]
    (look,) = image["looks"]  # type: ignore[index]
    attends = ref.startswith(("vit", "coatnet"))
    assert bool(look["layers"]) == attends
    assert ("No attention to show" in text) != attends


def test_a_large_model_fits_into_five_megabytes(picture: Path, tmp_path: Path) -> None:
    found = document("inspect", "vit-b/16", picture, "--out", tmp_path / "report")
    assert found["bytes"] == Path(found["page"]).stat().st_size < 5e6
    _, _, data = parsed(found["page"])
    layers = data["images"][0]["looks"][0]["layers"]  # type: ignore[index]
    assert [layer["heads"] for layer in layers] == [12] * 12


def test_words_and_a_second_model(picture: Path, tmp_path: Path) -> None:
    ref = two_towers(tmp_path / "model")
    found = document("inspect", ref, picture, "--out", tmp_path / "report", "--words", "a disc, <b>sky</b>,a disc",
                     "--compare", "resnet-18")  # fmt: skip
    assert any("resnet-18 has no text tower" in note for note in found["notes"])
    text, _, data = parsed(found["page"])
    first, second = data["images"][0]["looks"]  # type: ignore[index]
    assert first["wordNames"] == ["a disc", "<b>sky</b>"]
    assert second["words"] is None
    assert "<b>sky" not in text
    assert [model["name"] for model in data["models"]] == ["model", "resnet-18"]  # type: ignore[index, union-attr]


def test_broken_files_are_named_and_hostile_names_are_text(picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    name = "<img src=x onerror=alert(1)>\u202e.png"
    picture.rename(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    found = document("inspect", SMALL, folder, "--out", tmp_path / "report")
    assert [os.path.basename(path) for path in found["images"]] == [name]
    assert [os.path.basename(entry["path"]) for entry in found["skipped"]] == ["broken.jpg"]
    text, _, data = parsed(found["page"])
    assert "<img src=x" not in text
    assert data["images"][0]["name"] == name  # type: ignore[index]


def test_sizes_that_are_not_the_models(tmp_path: Path) -> None:
    for name, size in (("tiny.png", (3, 2)), ("huge.png", (4000, 600))):
        Image.new("RGB", size, "teal").save(tmp_path / name)
        found = document("inspect", SMALL, tmp_path / name, "--out", tmp_path / name[:4])
        _, _, data = parsed(found["page"])
        (how,) = data["images"][0]["fits"]  # type: ignore[index]
        assert f"{size[0]:,} × {size[1]} pixels" in how
        assert ("smaller than one patch" in how) == (name == "tiny.png")


def test_an_image_of_the_models_size_may_still_be_cut() -> None:
    model = Model(SMALL, build(SMALL), Preprocess(size=(32, 32)))
    assert how_it_fits(model, (32, 32)) == "32 × 32 pixels, as the model sees them"
    assert "only its middle" not in how_it_fits(model, (64, 64))
    model.preprocess = Preprocess(size=(32, 32), box=(40, 40))
    for side in (32, 64):
        assert how_it_fits(model, (side, side)).endswith("to the model’s own 32 × 32 (only its middle is seen)")


def test_more_images_than_are_shown(picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        shape_picture("blue", number).save(folder / f"{number}.png")
    found = document("inspect", SMALL, folder, picture, "--out", tmp_path / "report", "--most", "2")
    assert len(found["images"]) == 2
    assert any("2 of 4 images are shown" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("code", "flags", "words"),
    [
        (2, ["--layer", "13"], "There is no layer 13"), (2, ["--head", "9"], "There is no head 9 in that layer"),
        (1, ["--words", "cat"], "has no text tower"), (2, ["--words", " , "], "There are no words"),
        (1, ["--compare", "vit-huge/3"], "There is no model"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_leave_no_page(
    code: int, flags: list[str], words: str, picture: Path, tmp_path: Path
) -> None:
    assert words in refused(code, "inspect", SMALL, picture, "--out", tmp_path / "report", *flags)
    assert not (tmp_path / "report").exists()


def test_nothing_to_look_at_and_nowhere_to_write(picture: Path, tmp_path: Path) -> None:
    assert "gone.jpg" in refused(1, "inspect", SMALL, tmp_path / "gone.jpg", "--out", tmp_path / "report")
    assert "is a file" in refused(1, "inspect", SMALL, picture, "--out", picture)
    mine = tmp_path / "site"
    mine.mkdir()
    (mine / "index.html").write_text("<p>mine</p>", encoding="utf-8")
    assert "not written by Mirada" in refused(1, "inspect", SMALL, picture, "--out", mine)
    assert (mine / "index.html").read_text(encoding="utf-8") == "<p>mine</p>"


def test_the_same_page_again_and_what_the_shell_says(picture: Path, tmp_path: Path) -> None:
    first = run("inspect", SMALL, picture, "--out", tmp_path / "report")
    again = run("inspect", SMALL, picture, "--out", tmp_path / "report", "--layer", "2", "--head", "1")
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert again.stdout.startswith("page  ")
    _, _, data = parsed(tmp_path / "report" / "index.html")
    assert (data["layer"], data["head"]) == (1, 0)
    assert load(SMALL).architecture.startswith("vit-pico/8")
