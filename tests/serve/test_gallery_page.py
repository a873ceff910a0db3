"""The gallery in Debian's Chromium: all pictures, orders and conditions, and the views beside it."""

import re
from typing import Any

from browsing import shot
from gallery import TILE, Opener, answered, seen, wait_for, wait_for_pictures
from playwright.sync_api import Route, expect


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


def test_many_duplicates_are_shown_as_they_are_asked_for(opened: Opener) -> None:
    page = opened()
    wait_for_pictures(page)
    (group,) = answered(page, "/api/duplicates", limit=1)["groups"]
    asked: list[str] = []

    def answer(route: Route) -> None:
        offset = int(re.search(r"offset=(\d+)", route.request.url)[1])
        asked.append(route.request.url)
        route.fulfill(json={"total": 205, "version": "7", "groups": [group] * min(200, 205 - offset)})

    page.route("**/api/duplicates*", answer)
    page.get_by_role("button", name="Duplicates").click()
    expect(page.locator(".group")).to_have_count(200)
    assert "v=7" in str(page.locator(".group img").first.get_attribute("src"))
    assert page.locator("#where").is_disabled()
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".group")).to_have_count(205)
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)
    assert len(asked) == 2
    page.get_by_role("button", name="All pictures").click()
    assert page.locator("#where").is_enabled()


def test_the_api_is_documented(opened: Opener) -> None:
    page = opened("/api")
    expect(page.get_by_role("heading", name="GET /api/search")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text("curl")
    shot(page, "api")
