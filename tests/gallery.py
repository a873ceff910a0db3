"""Steps of a test in the served page, as a person would take them, and what can be seen there."""

from collections.abc import Callable
from typing import Any

import browsing  # noqa: F401  # skips whoever needs a browser where there is none
from playwright.sync_api import Page, expect

Opener = Callable[..., Page]

TILE = ".tile:not([hidden])"
TOKEN = "open sesame"
NOTHING = "qzxv wkjhq"  # which no index knows
expect.set_options(timeout=15_000)  # milliseconds: whoever runs tests may be busy


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
