"""One picture in Debian's Chromium: what is known of it, why it was found, and where it looks."""

import numpy as np
from browsing import shot
from gallery import TILE, Opener, answered, find_like, number_of, open_first, seen, wait_for_pictures
from playwright.sync_api import Page, expect


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
