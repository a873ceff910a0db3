"""Searching in Debian's Chromium, as people do it: words, chips, pictures that are chosen or dropped."""

import re

from browsing import shot
from gallery import NOTHING, TILE, Opener, answered, ask, number_of, seen, wait_for, wait_for_pictures
from playwright.sync_api import Browser, Route, expect
from served import NAMES, Served


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


def test_words_typed_while_the_page_gets_ready_stay_in_the_box(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)

    def type_then_answer(route: Route) -> None:
        page.locator("#words").fill(NOTHING)
        route.continue_()

    page.route("**/api/index", type_then_answer)
    page.reload(wait_until="commit")
    expect(page.locator("#views button").first).to_be_visible()
    page.locator("#words").press("Enter")
    expect(page.locator("#status")).to_contain_text("Nothing here matches.")
    expect(page.locator(".chip")).to_have_text(f"+{NOTHING}×")


def test_words_typed_while_an_answer_is_on_its_way_stay(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)

    def type_then_answer(route: Route) -> None:
        found = route.fetch()
        page.locator("#words").press_sequentially(" + blue")
        route.fulfill(response=found)

    page.route("**/api/search*", type_then_answer, times=1)
    page.locator("#words").fill("red")
    page.locator("#words").press("Enter")
    page.wait_for_url(re.compile(r"q=red\+%2B\+blue"))
    expect(page.locator("#words")).to_have_value("red + blue")
    page.locator("#words").press("Enter")
    expect(page.locator(".chip")).to_have_text(["+red×", "+blue×"])


def test_how_many_are_shown_is_not_how_many_match(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)

    def answer(route: Route) -> None:
        found = route.fetch().json()
        row = {"id": 1, "name": "a.png", "path": "/a.png", "size": 1}
        route.fulfill(json=found | {"pictures": [row] * 500})

    page.route("**/api/search*", answer)
    ask(page, "red")
    expect(page.locator("#status")).to_have_text("The 500 that match best")


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
