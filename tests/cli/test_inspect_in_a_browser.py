"""The page of `mirada inspect` in Debian's Chromium, from a file, on a desk and on a phone, for every family."""

import re
from pathlib import Path

import pytest
import torch
from browsing import DESKTOP, PHONE, barriers, shot
from commands import document
from inspected import FAMILIES, SMALL, two_towers
from peers import import_torchvision
from playwright.sync_api import Browser, Page, expect
from shapes import shape_picture

from mirada.backbones import build
from mirada.inspect.look import look
from mirada.model import Model
from mirada.preprocess import Preprocess

NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def made_here(name: str, folder: Path) -> str:
    """A model with random weights as a library saves one, by the beginning of its name."""
    return str(two_towers(folder)) if name == "two towers" else from_transformers(name, folder)


def from_transformers(name: str, folder: Path) -> str:
    import_torchvision()
    import transformers

    if name.startswith("vit"):
        config = transformers.ViTConfig(image_size=32, patch_size=8, **NARROW)
        model = transformers.ViTForImageClassification(config)
    else:
        config = transformers.Dinov2WithRegistersConfig(image_size=56, patch_size=14, **NARROW)
        model = transformers.Dinov2WithRegistersModel(config)
    model.save_pretrained(folder)
    return str(folder)


NAMES = [*FAMILIES, "two towers", "vit of transformers", "dinov2 with registers of transformers"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page for each family; the first beside a second model."""
    folder = tmp_path_factory.mktemp("pages")
    picture = folder / "disc.png"
    shape_picture("red", 0, 48).save(picture)
    made = {}
    for number, name in enumerate(NAMES):
        ref = name if name in FAMILIES else made_here(name, folder / str(number))
        more = ["--words", "a disc,the sky"] if name == "two towers" else []
        more += ["--compare", "resnet-18"] if name == SMALL else []
        made[name] = Path(document("inspect", ref, picture, "--out", folder / f"page-{number}", *more)["page"])
    return made


def opened(browser: Browser, file: Path, wrong: list[str], **options: object) -> Page:
    context = browser.new_context(reduced_motion="reduce", **options)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url)
            if not asked.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
    page.goto(file.as_uri())
    return page


def test_the_layer_and_head_that_were_asked_for(tmp_path: Path, browser: Browser) -> None:
    """Beside a deeper model too; and what a head spends on the class token is its own."""
    torch.manual_seed(0)
    one = Model(SMALL, build(SMALL), Preprocess(size=(32, 32)))
    with torch.no_grad():
        one.backbone.blocks[1].attention.qkv.weight.mul_(8)  # heads that differ
    image = shape_picture("red", 0, 32)
    image.save(tmp_path / "disc.png")
    made = document("inspect", one.save(tmp_path / "model"), tmp_path / "disc.png", "--layer", 2, "--head", 2,
                    "--compare", "vit-pico/8(image_size=32, depth=12)", "--out", tmp_path / "page")  # fmt: skip
    wrong: list[str] = []
    page = opened(browser, Path(made["page"]), wrong, viewport=DESKTOP)
    readout = page.locator("[data-readout='0']")
    expect(readout).to_contain_text("Layer 2. Head 2, from the class token.")
    page.locator("[data-draw='attention']").first.hover(position={"x": 3, "y": 3})
    expect(readout).to_contain_text("Layer 2. Head 2, from row 1, column 1.")
    said = re.search(r"([\d.]+)% goes to the class token", readout.inner_text())
    assert said is not None
    spent = 100 * look(one, image).layers[1].spent[:, 0, 0]
    assert float(said[1]) == pytest.approx(float(spent[1]), abs=0.75)
    assert abs(float(spent[1] - spent.mean())) > 2
    page.context.close()
    assert wrong == []


@pytest.mark.parametrize("size", ["desk", "phone"])
@pytest.mark.parametrize("name", NAMES)
def test_a_person_can_look(name: str, size: str, pages: dict[str, Path], browser: Browser) -> None:
    wrong: list[str] = []
    viewport = DESKTOP if size == "desk" else PHONE
    page = opened(browser, pages[name], wrong, viewport=viewport, has_touch=size == "phone", bypass_csp=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], "it must not scroll sideways"
    drawn = """() => [...document.querySelectorAll('canvas.heat')].filter(canvas => canvas.offsetWidth).every(canvas =>
        canvas.width > 0 && canvas.height > 0)"""
    assert page.evaluate(drawn)
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    if page.locator("#layer").count():
        view = page.locator("[data-draw='attention']").first
        if size == "phone":
            view.tap()
        else:
            view.hover()
        readout = page.locator("[data-readout='0']")
        pointed = readout.inner_text()
        assert pointed
        view.focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowUp")
        page.wait_for_function(
            "before => document.querySelector(`[data-readout='0']`).innerText !== before", arg=pointed
        )
        before = page.locator("#layer").input_value()
        page.keyboard.press("[" if before != "1" else "]")
        expect(page.locator("#layer")).not_to_have_value(before)
    else:
        assert "No attention to show" in page.inner_text("body")
    assert barriers(page) == []
    shot(page, f"inspect-{NAMES.index(name)}-{size}", full_page=True)
    page.context.close()
    assert wrong == []
