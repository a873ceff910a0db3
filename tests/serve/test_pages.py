"""The page in Debian's Chromium, as people use it: pointer, keyboard, phone, two languages, light and dark."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import uvicorn
from browsing import DESKTOP, PHONE, barriers, launched, shot
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from served import NAMES, Served

from mirada.serve.app import create_app
from mirada.serve.shelf import Shelf

TILE = ".tile:not([hidden])"
TOKEN = "open sesame"
NOTHING = "qzxv wkjhq"  # which no index knows
expect.set_options(timeout=15_000)  # milliseconds: whoever runs tests may be busy


def running(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def shelf(served_index: Served) -> Shelf:
    return Shelf(served_index.index)


@pytest.fixture(scope="module")
def address(shelf: Shelf) -> Iterator[str]:
    yield from running(create_app(shelf))


@pytest.fixture(scope="module")
def guarded_address(shelf: Shelf) -> Iterator[str]:
    yield from running(create_app(shelf, TOKEN))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


Opener = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Opener]:
    """Opens the page in a browser of its own; no script may fail in it, and no request may leave for another host."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def opener(path: str = "/", base: str = address, **options: Any) -> Page:
        options = {"viewport": DESKTOP, "locale": "en-GB", "reduced_motion": "reduce", "base_url": base} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith((base, "blob:")) else None)
        page.goto(path)
        return page

    yield opener
    for context in contexts:
        context.close()
    assert wrong == []


def wait_for_pictures(page: Page) -> None:
    page.locator(".tile.here").first.wait_for()


def wait_for(page: Page, place: int, number: int) -> None:
    """Until that picture is shown at that place of the gallery."""
    page.wait_for_function("""([place, number]) => {
        const tiles = [...document.querySelectorAll('.tile:not([hidden])')];
        return tiles.some(tile => tile.place === place && tile.row?.id === number);
    }""", arg=[place, number])  # fmt: skip


def seen(page: Page) -> list[int]:
    """Ids of the tiles in sight, in the order of their places."""
    script = "tiles => tiles.filter(tile => tile.row).sort((a, b) => a.place - b.place).map(tile => tile.row.id)"
    found: list[int] = page.locator(TILE).evaluate_all(script)
    return found


def answered(page: Page, path: str, **query: Any) -> Any:
    return page.request.get(path, params=query).json()


def ask(page: Page, words: str) -> None:
    page.locator("#words").fill(words)
    page.locator("#words").press("Enter")


def open_first(page: Page) -> None:
    wait_for_pictures(page)
    page.locator(TILE).evaluate_all("tiles => tiles.find(tile => tile.place === 0).click()")
    page.locator("#picture[open] .photo").wait_for()


def find_like(page: Page, number: int) -> None:
    """Search with a picture of the index, which finds itself and its like."""
    page.goto(f"/?plus={number}")
    wait_for_pictures(page)


def number_of(page: Page, ending: str) -> int:
    rows = answered(page, "/api/pictures", limit=1000)["pictures"]
    return int(next(row["id"] for row in rows if row["path"].endswith(ending)))


# --- the gallery ------------------------------------------------------------------------------------------------------


def test_the_gallery_has_every_picture_and_only_the_tiles_in_sight(opened: Opener) -> None:
    page = opened(viewport={"width": 500, "height": 400})
    wait_for_pictures(page)
    shot(page, "gallery")
    order = answered(page, "/api/pictures", limit=1000)
    expect(page.locator("#status")).to_have_text(f"{order['total']} pictures")
    expected = [row["id"] for row in order["pictures"]]
    top = seen(page)
    assert top == expected[: len(top)]
    most = page.locator(".tile").count()
    assert most < len(expected) * 0.8
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    wait_for(page, len(expected) - 1, expected[-1])
    end = seen(page)
    assert end == expected[-len(end) :]
    assert page.locator(TILE).count() < len(expected) * 0.8


def test_five_million_pictures_can_be_scrolled_through(opened: Opener) -> None:
    page = opened("/icon.svg")
    row = answered(page, "/api/pictures", limit=1)["pictures"][0]
    total = 5_000_000

    def many(route: Any) -> None:
        given = {name: int(value) for name, value in re.findall(r"(offset|limit)=(\d+)", route.request.url)}
        count = min(given["limit"], total - given.get("offset", 0))
        rows = [row | {"name": str(given.get("offset", 0) + place)} for place in range(count)]
        route.fulfill(json={"total": total, "version": "1", "pictures": rows})

    page.route("**/api/pictures?**", many)
    page.goto("/")
    wait_for_pictures(page)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.get_by_role("button", name=str(total - 1), exact=True)
    last.wait_for()
    expect(last).to_be_in_viewport()
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    page.wait_for_function("""() => {
        const names = [...document.querySelectorAll('.tile:not([hidden])')].map(tile => Number(tile.row?.name));
        return names.length && names.every(name => Math.abs(name - 2.5e6) < 2e4);
    }""")


def test_order_and_condition(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    page.get_by_role("button", name="Options").click()
    shot(page, "options")
    page.get_by_label("Order").select_option("path")
    page.get_by_label("Only").fill("path like '%/green/%'")
    page.get_by_label("Only").press("Enter")
    expect(page.locator("#status")).to_have_text("30 pictures")
    wait_for_pictures(page)
    expected = answered(page, "/api/pictures", where="path like '%/green/%'", sort="path", descending=False, limit=30)
    found = seen(page)
    assert found == [row["id"] for row in expected["pictures"]][: len(found)]
    page.get_by_label("Only").fill("drop table")
    page.get_by_label("Only").press("Enter")
    expect(page.locator("#status .wrong")).to_contain_text("there is no column 'drop'")


# --- searching --------------------------------------------------------------------------------------------------------


def test_words_become_a_chip_and_find_what_the_server_finds(opened: Opener) -> None:
    page = opened()
    ask(page, NOTHING)
    expect(page.locator("#status")).to_contain_text("Nothing here matches.")
    expect(page.locator(TILE)).to_have_count(0)
    page.get_by_role("button", name="Show the nearest all the same").click()
    wait_for_pictures(page)
    expect(page.locator(".chip")).to_have_text(f"+{NOTHING}×")
    found = seen(page)
    expected = answered(page, "/api/search", q=NOTHING, k=500, all=True)["pictures"]
    assert found == [row["id"] for row in expected][: len(found)]
    page.go_back()
    expect(page.locator("#status")).to_contain_text(f"{30 * 3 + len(NAMES)} pictures")


def test_words_that_come_before_the_page_is_ready_are_not_lost(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, locale="en-GB")
    page = context.new_page()
    held: list[Route] = []
    page.route("**/api/index", lambda route: held.append(route))
    page.goto("/", wait_until="commit")
    ask(page, NOTHING)
    page.wait_for_url("**/?q=*")
    page.unroute_all()
    page.reload()
    expect(page.locator("#status")).to_contain_text("Nothing here matches.")
    context.close()


def test_chips_turn_and_go(opened: Opener) -> None:
    page = opened()
    ask(page, "red - blue")
    chips = page.locator(".chip")
    expect(chips).to_have_text(["+red×", "−blue×"])
    shot(page, "chips")
    chips.nth(1).locator(".sign").click()
    expect(chips).to_have_text(["+red×", "+blue×"])
    page.wait_for_url(re.compile(r"q=%22red%22\+%2B\+%22blue%22"))
    chips.nth(0).locator(".sign").click()
    chips.nth(1).locator(".sign").click()
    expect(page.locator("#status .wrong")).to_contain_text("say also what to look for")
    chips.nth(0).locator(".remove").click()
    expect(chips).to_have_text(["−blue×"])
    page.locator("#words").press("Backspace")
    expect(chips).to_have_count(0)
    wait_for_pictures(page)


def test_a_picture_is_chosen_or_dropped(opened: Opener, served_index: Served) -> None:
    page = opened()
    page.locator(".tile.here").first.wait_for()
    file = served_index.pictures / "blue" / "012.png"
    page.locator("#choose").set_input_files(file)
    expect(page.locator(".chip img")).to_have_count(1)
    expect(page.get_by_role("heading", name="Found")).to_be_attached()
    wait_for(page, 0, number_of(page, "blue/012.png"))
    page.keyboard.press("Escape")
    page.locator("h1").evaluate(
        """(_, bytes) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' }));
        for (const type of ['dragenter', 'dragover', 'drop'])
          document.body.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }""",
        list((served_index.pictures / "green" / "003.png").read_bytes()),
    )
    expect(page.locator(".chip img[alt='dropped.png']")).to_have_count(1)
    wait_for(page, 0, number_of(page, "green/003.png"))
    expect(page.locator("#drop")).to_be_hidden()


def test_what_is_no_picture_is_said(opened: Opener) -> None:
    page = opened()
    page.locator(".tile.here").first.wait_for()
    page.locator("#choose").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"<html>"})
    expect(page.locator("#status .wrong")).to_be_visible()
    expect(page.locator(".chip")).to_have_count(0)


# --- one picture ------------------------------------------------------------------------------------------------------


def test_a_picture_is_opened_with_all_that_is_known(opened: Opener) -> None:
    page = opened()
    number = number_of(page, "/copy.png")
    find_like(page, number)
    open_first(page)
    picture = page.locator("#picture")
    expect(picture.locator(".facts")).to_contain_text("24 × 24")
    expect(picture.locator(".facts")).to_contain_text("Cosine1.000")
    neighbours = answered(page, f"/api/pictures/{number}/neighbours", k=12)["pictures"]
    expect(picture.locator("#neighbours button")).to_have_count(len(neighbours))
    copies = answered(page, f"/api/pictures/{seen(page)[0]}/duplicates")["pictures"]
    expect(picture.locator("#same button")).to_have_count(len(copies))
    shot(page, "picture")
    picture.get_by_role("button", name="Less like this").click()
    expect(page.locator(".chip.less")).to_have_count(1)


def test_hostile_names_are_text(opened: Opener) -> None:
    page = opened("/?where=" + "path like '%25.png' and not path like '%25/0%25'")
    wait_for_pictures(page)
    labels = page.locator(TILE).evaluate_all("tiles => tiles.map(tile => tile.getAttribute('aria-label'))")
    assert sorted(labels) == sorted(
        ["copy.png", "<img src=x onerror=alert(1)>.png", 'two\\u000alines".png', "\\u202egpj.png", "año ñandú 🦤.png"]
    )
    for label in labels:
        page.get_by_role("button", name=label, exact=True).first.click()
        expect(page.locator("#picture h2")).to_have_text(label)
        expect(page.locator("#picture .path")).to_contain_text(label)
        assert page.locator("[onerror]").count() == 0
        page.keyboard.press("Escape")


def brightest(page: Page) -> list[int]:
    """Row and column of the brightest pixel of the map."""
    found: list[int] = page.locator(".heat").evaluate("""canvas => {
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const light = [];
        for (let at = 0; at < pixels.length; at += 4) light.push(pixels[at] + pixels[at + 1] + pixels[at + 2]);
        const at = light.indexOf(Math.max(...light));
        return [Math.floor(at / canvas.width), at % canvas.width];
    }""")
    return found


def highest(values: list[list[float]]) -> list[int]:
    row, column = np.unravel_index(np.argmax(values), np.shape(values))
    return [int(row), int(column)]


def test_why_it_matched_is_painted_over_it(opened: Opener) -> None:
    page = opened()
    number = number_of(page, "red/007.png")
    open_first(page)
    page.keyboard.press("2")
    expect(page.locator(".readout")).to_contain_text("Search first")
    page.keyboard.press("Escape")
    find_like(page, number)
    open_first(page)
    page.get_by_role("button", name="Why it matched").click()
    expect(page.locator(".heat")).to_be_visible()
    values = answered(page, f"/api/pictures/{seen(page)[0]}/heat", plus=number)["values"]
    flat = [value for row in values for value in row]
    expect(page.locator(".readout")).to_contain_text(f"cosine from {min(flat):.2f} to {max(flat):.2f}")
    assert brightest(page) == highest(values)
    shot(page, "heat")


def test_attention_follows_the_pointer(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    open_first(page)
    expect(page.locator("[aria-pressed=true]")).to_have_text("Picture")
    page.get_by_role("button", name="Attention", exact=True).click()
    expect(page.locator("[aria-pressed=true]")).to_have_text("Attention")
    expect(page.locator(".readout")).to_contain_text("Layer 1 of 1")
    maps = answered(page, f"/api/pictures/{seen(page)[0]}/attention")["from"]
    view = page.locator(".view").bounding_box()
    assert view is not None
    for row, column in ((0, 0), (2, 1), (1, 2)):
        page.mouse.move(view["x"] + view["width"] * (column + 0.5) / 3, view["y"] + view["height"] * (row + 0.5) / 3)
        assert brightest(page) == highest(maps[row][column])
    shot(page, "attention")
    page.locator(".view").press("ArrowLeft")
    assert brightest(page) == highest(maps[1][1])


# --- the other views --------------------------------------------------------------------------------------------------


def test_outliers_and_duplicates(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    page.get_by_role("button", name="Outliers").click()
    expect(page.locator("#status")).to_contain_text("the loneliest first")
    expected = [row["id"] for row in answered(page, "/api/outliers", limit=1000)["pictures"]]
    wait_for(page, 0, expected[0])
    found = seen(page)
    assert found == expected[: len(found)]
    shot(page, "outliers")
    page.get_by_role("button", name="Duplicates").click()
    groups = answered(page, "/api/duplicates", limit=1000)["groups"]
    expect(page.locator(".group")).to_have_count(len(groups))
    shot(page, "duplicates")
    page.locator(".group button").first.click()
    expect(page.locator("#picture")).to_be_visible()
    page.reload()
    expect(page.locator(".group")).to_have_count(len(groups))


def test_the_api_is_documented(opened: Opener) -> None:
    page = opened("/api")
    expect(page.get_by_role("heading", name="GET /api/search")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text("curl")
    shot(page, "api")


# --- how it looks and speaks ------------------------------------------------------------------------------------------


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


# --- what may go wrong ------------------------------------------------------------------------------------------------


def test_the_token_lets_a_browser_in(opened: Opener, guarded_address: str) -> None:
    page = opened(base=guarded_address)
    page.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login")
    shot(page, "token")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    wait_for_pictures(page)
    page.reload()
    wait_for_pictures(page)


def test_a_server_that_does_not_answer_is_said(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    page.context.set_offline(True)
    ask(page, "red")
    expect(page.locator("#status .wrong")).to_contain_text("The server does not answer")
    page.context.set_offline(False)
    ask(page, NOTHING)
    expect(page.locator("#status")).to_contain_text("Nothing here matches.")
