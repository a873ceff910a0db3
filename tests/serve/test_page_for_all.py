"""The page in Debian's Chromium for everybody: light and dark, a phone, Spanish, keys alone, no barriers."""

import re
from typing import Any

import pytest
from browsing import PHONE, barriers, shot
from gallery import NOTHING, Opener, answered, ask, find_like, number_of, open_first, wait_for_pictures
from playwright.sync_api import Page, expect


def lightness(page: Page) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765


def test_dark_and_light(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    assert lightness(page) > 0.9
    page.keyboard.press("d")
    assert lightness(page) < 0.2
    page.reload()
    wait_for_pictures(page)
    assert lightness(page) < 0.2
    shot(page, "dark")
    assert lightness(opened(color_scheme="dark")) < 0.2


def test_a_phone_is_wide_enough(opened: Opener) -> None:
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True)
    number = number_of(page, "red/007.png")

    def fits(name: str) -> None:
        shot(page, name)
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")

    find_like(page, number)
    fits("phone-found")
    page.locator("#tools").tap()
    fits("phone-options")
    page.locator("#tools").tap()
    open_first(page)
    expect(page.locator("#neighbours button").first).to_be_visible()
    assert page.locator("#picture").evaluate("picture => picture.scrollWidth <= picture.clientWidth")
    fits("phone-picture")
    page.locator(".close").tap()
    page.get_by_role("button", name="Duplicates").tap()
    expect(page.locator(".group").first).to_be_visible()
    fits("phone-duplicates")


def test_spanish(opened: Opener) -> None:
    page = opened(locale="es-MX")
    expect(page.locator("html")).to_have_attribute("lang", "es")
    expect(page.get_by_role("button", name="Repetidas")).to_be_visible()
    shot(page, "spanish")
    ask(page, NOTHING)
    expect(page.locator("#status")).to_contain_text("Aquí no coincide nada.")
    page.get_by_role("button", name="Opciones").click()
    page.get_by_label("Idioma").select_option("en")
    expect(page.locator("#status")).to_contain_text("Nothing here matches.")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def wait_for_focus(page: Page, number: int) -> None:
    """Until the keyboard is at that picture's tile."""
    page.wait_for_function("number => document.activeElement.row?.id === number", arg=number)


def test_keys_alone_will_do(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    expected = [row["id"] for row in answered(page, "/api/pictures", limit=100)["pictures"]]
    keys = page.keyboard
    keys.press("/")
    keys.press("ArrowDown")
    wait_for_focus(page, expected[0])
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    wait_for_focus(page, expected[2])
    keys.press("Enter")
    expect(page.locator("#picture")).to_be_visible()
    keys.press("ArrowRight")
    expect(page.locator("#picture .photo")).to_have_attribute("src", re.compile(f"/{expected[3]}/"))
    keys.press("3")
    expect(page.locator(".cursor")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#picture")).to_be_hidden()
    wait_for_focus(page, expected[3])
    keys.press("End")
    wait_for_focus(page, expected[-1])
    keys.press("+")
    expect(page.locator(".chip img")).to_have_count(1)
    keys.press("Escape")
    expect(page.locator(".chip")).to_have_count(0)
    keys.press("o")
    expect(page.locator("[aria-current]")).to_have_text("Outliers")
    keys.press("u")
    expect(page.locator(".group").first).to_be_visible()
    keys.press("g")
    expect(page.locator("[aria-current]")).to_have_text("All pictures")
    keys.press("?")
    expect(page.locator("#keys")).to_be_visible()
    keys.press("Escape")
    page.locator(".skip").focus()
    keys.press("Enter")
    expect(page.locator("#grid")).to_be_focused()


CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}


@pytest.mark.parametrize(("colours", "rules"), [("light", None), ("dark", CONTRAST)], ids=["light", "dark"])
def test_axe_finds_no_barrier(opened: Opener, colours: str, rules: Any, guarded_address: str) -> None:
    def check(page: Page, state: str) -> None:
        assert barriers(page, rules) == [], state

    options = {"color_scheme": colours, "bypass_csp": True}  # the checks are a script that is put into the page
    page = opened(**options)
    wait_for_pictures(page)
    check(page, "gallery")
    page.locator("#tools").click()
    ask(page, "red - blue")
    expect(page.locator(".chip")).to_have_count(2)
    check(page, "options and chips")
    find_like(page, number_of(page, "red/007.png"))
    open_first(page)
    expect(page.locator("#neighbours button").first).to_be_visible()
    page.keyboard.press("2")
    check(page, "picture")
    page.keyboard.press("3")
    expect(page.locator(".cursor")).to_be_visible()
    check(page, "attention")
    page.goto("/?view=duplicates")
    page.locator(".group").first.wait_for()
    check(page, "duplicates")
    page.keyboard.press("?")
    check(page, "keys")
    page.goto("/api")
    page.locator("section").first.wait_for()
    check(page, "api")
    check(opened(base=guarded_address, **options), "token")
