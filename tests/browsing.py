"""Debian's Chromium, for tests of pages; they are skipped where it or Playwright is not installed.

With MIRADA_SCREENSHOTS=FOLDER in the environment every picture that `shot` takes is kept there.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="needs Playwright: pip install 'mirada[dev]'")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs Debian's Chromium: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

DESKTOP, PHONE = {"width": 1100, "height": 700}, {"width": 390, "height": 800}


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def shot(page: Page, name: str, **options: Any) -> None:
    if folder := os.environ.get("MIRADA_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", **options)


def barriers(page: Page, rules: Any = None) -> list[tuple[str, list[str]]]:
    """What axe finds, and where. The page must be opened with `bypass_csp`: the checks are a script put into it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, options=rules).response
    assert found["passes"]
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]
