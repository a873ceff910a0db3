"""What the page in Debian's Chromium says when something goes wrong."""

from browsing import shot
from gallery import NOTHING, TOKEN, Opener, ask, wait_for_pictures
from playwright.sync_api import expect


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


def test_an_index_that_is_gone_when_the_page_opens_is_said(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    gone = {"error": "There is no index in '/x': make one with `mirada index PHOTOS --index /x`."}
    page.route("**/api/index", lambda route: route.fulfill(status=503, json=gone))
    page.reload()
    expect(page.locator("#status .wrong")).to_have_text(gone["error"])


def test_a_server_that_does_not_answer_is_said(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    page.context.set_offline(True)
    ask(page, "red")
    expect(page.locator("#status .wrong")).to_contain_text("The server does not answer")
    page.context.set_offline(False)
    ask(page, NOTHING)
    expect(page.locator("#status")).to_contain_text("Nothing here matches.")
