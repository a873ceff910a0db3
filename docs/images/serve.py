"""The pictures of docs/serve.md, anew.

    python docs/images/serve.py MODEL FOLDER        # writes docs/images/serve.webp and serve-picture.webp

MODEL reads words and knows drawings; FOLDER is where OpenMoji's drawings (CC BY-SA 4.0) and their index are put, and is
used again the next time. Needs `pip install 'mirada[dev]'` and Debian's Chromium.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mirada.demo import draw
from mirada.search.index import Index

HERE = Path(__file__).parent
SIDE, QUALITY = 320, 82
WINDOW = {"width": 1200, "height": 760}


@contextmanager
def served(index: Path) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "mirada",
        "serve",
        "--index",
        str(index),
        "--port",
        "0",
        "--device",
        "cpu",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def keep(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(HERE / f"{name}.webp", quality=QUALITY, method=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--query", default="heart - cat")
    options = parser.parse_args()
    draw(options.folder / "drawings", lambda *_: None, side=SIDE)
    Index.update(options.folder / "drawings", options.folder / "index", model=options.model)
    with served(options.folder / "index") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, colours in (("serve", "light"), ("serve-picture", "dark")):
            page = browser.new_page(viewport=WINDOW, color_scheme=colours, locale="en-GB", reduced_motion="reduce")
            page.goto(f"{address}?{urlencode({'q': options.query})}")
            page.locator(".tile.here").first.wait_for()
            if name == "serve-picture":
                page.keyboard.press("/")
                page.keyboard.press("ArrowDown")
                page.keyboard.press("Enter")
                page.keyboard.press("2")
                page.locator(".heat").wait_for()
                page.locator("#neighbours img").first.wait_for()
            keep(page, name)
        browser.close()


if __name__ == "__main__":
    main()
