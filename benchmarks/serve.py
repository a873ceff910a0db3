"""How smoothly the page of a large index scrolls, how soon it is there, and how it bears many who search at once.

    python benchmarks/serve.py make DIR        # an index of 100,000 rows and a model beside it; five minutes
    python benchmarks/serve.py measure DIR     # writes docs/numbers/serve.md; two minutes

Rows are synthetic (seed 0): random unit vectors, and thumbnails of 256 x 192 pixels, of which there are 2,000 different
ones. The model has two small towers with random weights, so that a search costs what it costs and finds nothing in
particular. Needs Playwright and Debian's Chromium (`apt-get install chromium`), which runs without a window on the same
machine as the server. Use a machine that does nothing else.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

from mirada.backbones import build
from mirada.model import Model, Projection
from mirada.preprocess import Preprocess
from mirada.search.embedder import open_model
from mirada.search.table import create_table, location
from mirada.search.vectors import build_index, needs_index
from mirada.text import TextDesign
from mirada.train.folder import machine
from mirada.zero_shot import everyday_words

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "serve.md"
DIM, THUMBNAILS, BATCH = 256, 2000, 10_000
SIZE = {"width": 1280, "height": 800}
SEARCHERS, EACH = 50, 10
LOADS = 7
STEADY, FLING = 3_000, 60_000  # pixels per second: with every thumbnail, and rushing through
STEADY_SECONDS = 10
CATEGORIES = ["devtools.timeline", "toplevel", "disabled-by-default-devtools.timeline"]


def two_towers(folder: Path) -> str:
    torch.manual_seed(0)
    text = TextDesign(width=128, depth=2, num_heads=4, hidden=256, dim=DIM)
    name = "vit-nano/8(image_size=64)"
    model = Model(name, build(name), Preprocess(size=(64, 64)), projection=Projection(DIM), text=text)
    return str(model.save(folder))


def drawing(draw: np.random.Generator) -> bytes:
    coarse = Image.fromarray(draw.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    picture = coarse.resize((256, 192), Image.Resampling.BICUBIC)
    left, top = draw.integers(0, 150), draw.integers(0, 100)
    ImageDraw.Draw(picture).ellipse((left, top, left + 90, top + 90), fill=tuple(draw.integers(0, 255, 3).tolist()))
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=80, method=0)
    return buffer.getvalue()


def make(folder: Path, rows: int) -> None:
    where = location(folder / "index")
    table = create_table(where, open_model(two_towers(folder / "model")).made)
    draw = np.random.default_rng(0)
    thumbnails = [drawing(draw) for _ in range(THUMBNAILS)]
    began = datetime(2015, 1, 1)
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        vectors = draw.standard_normal((count, DIM), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        numbers = np.arange(start, start + count)
        dates = [began + timedelta(minutes=45 * number) for number in numbers.tolist()]
        values = {
            "id": numbers, "path": [f"/pictures/{number // 500}/{number:06}.jpg" for number in numbers.tolist()],
            "size": draw.integers(10**5, 10**7, count), "seen": np.zeros(count, np.int64),
            "modified": dates, "date": dates, "width": np.full(count, 1024), "height": np.full(count, 768),
            "content": [number.tobytes() * 2 for number in numbers], "phash": draw.integers(-(2**62), 2**62, count),
            "thumbnail": [thumbnails[number % THUMBNAILS] for number in numbers.tolist()],
        }  # fmt: skip
        flat = pa.array(vectors.astype(np.float16).reshape(-1))
        columns = [
            pa.FixedSizeListArray.from_arrays(flat, DIM) if field.name == "vector"
            else pa.array(values.get(field.name, [None] * count), field.type)
            for field in table.schema
        ]  # fmt: skip
        table.add(pa.Table.from_arrays(columns, schema=table.schema))
    if needs_index(table):
        print(build_index(where))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the index, served by a process of its own, which has its model in memory already."""
    command = [sys.executable, "-m", "mirada", "serve", "--index", str(folder / "index"), "--port", "0", "--device",
               "cpu", "--json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = json.loads(process.stdout.readline())["url"].rstrip("/")
            httpx.get(f"{address}/api/search", params={"q": "warm up", "all": True}, timeout=600).raise_for_status()
            yield address
        finally:
            process.terminate()


def first_paints(browser: Browser, address: str) -> tuple[list[float], list[float]]:
    """Milliseconds to the first paint and until the first thumbnails are there, each with empty caches."""
    paints, pictures = [], []
    for _ in range(LOADS):
        page = browser.new_context(viewport=SIZE).new_page()
        page.goto(address)
        page.locator(".tile.here").first.wait_for()
        pictures.append(page.evaluate("performance.now()"))
        paints.append(page.evaluate("performance.getEntriesByName('first-paint')[0].startTime"))
        page.context.close()
    return paints, pictures


def scroll(browser: Browser, page: Page, distance: float, speed: int) -> tuple[list[float], list[float]]:
    """Milliseconds between frames, and processor time of each task of the page's main thread, as a wheel turns."""
    page.evaluate("() => { const next = () => { window.beating = requestAnimationFrame(next); }; next(); }")
    browser.start_tracing(page=page, categories=CATEGORIES)
    wheel = {"x": 640, "y": 500, "yDistance": -distance, "speed": speed, "gestureSourceType": "mouse"}
    page.context.new_cdp_session(page).send("Input.synthesizeScrollGesture", wheel)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    page.evaluate("cancelAnimationFrame(window.beating)")
    beats = [event for event in events if event["name"] == "FireAnimationFrame"]
    (thread,) = {(event["pid"], event["tid"]) for event in beats}
    starts = sorted({event["ts"] for event in beats})
    tasks = [event["tdur"] / 1000 for event in events if (event["pid"], event["tid"]) == thread
             and event["name"] in ("RunTask", "ThreadControllerImpl::RunTask") and "tdur" in event]  # fmt: skip
    return [(later - one) / 1000 for one, later in pairwise(starts)], tasks


async def searchers(address: str) -> tuple[list[float], int, float]:
    """Seconds of each search of fifty at once, how many failed, and seconds in all."""
    words, spent, failed = everyday_words(), [], 0

    async def one(client: httpx.AsyncClient, number: int) -> None:
        nonlocal failed
        for turn in range(EACH):
            began = time.perf_counter()
            asked = {"q": words[(number * EACH + turn) % len(words)], "k": 60, "all": True}
            answer = await client.get(f"{address}/api/search", params=asked)
            spent.append(time.perf_counter() - began)
            failed += answer.status_code != 200 or len(answer.json()["pictures"]) != 60

    began = time.perf_counter()
    limits = httpx.Limits(max_connections=SEARCHERS)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        await asyncio.gather(*(one(client, number) for number in range(SEARCHERS)))
    return spent, failed, time.perf_counter() - began


def measure(folder: Path) -> str:
    with served(folder) as address:
        spent, failed, seconds = asyncio.run(searchers(address))
        pictures = httpx.get(f"{address}/api/index").json()["pictures"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            paints, thumbnails = first_paints(browser, address)
            page = browser.new_page(viewport=SIZE)
            page.goto(address)
            page.locator(".tile.here").first.wait_for()
            tall = page.evaluate("document.body.scrollHeight")
            rows = [scrolled("3,000 pixels a second, every thumbnail", *scroll(browser, page, STEADY * STEADY_SECONDS,
                                                                              STEADY))]  # fmt: skip
            page.evaluate("scrollTo(0, 0)")
            rows.append(scrolled(f"the whole gallery, {tall:,} pixels", *scroll(browser, page, tall, FLING)))
            at_the_end = page.evaluate("scrollY + innerHeight >= document.body.scrollHeight - 2")
            chromium = browser.version
            browser.close()
    assert at_the_end
    milliseconds = sorted(1000 * one for one in spent)
    return f"""# The page of {pictures:,} pictures

| what | goal | measured |
|---|---|---|
| first paint, median of {LOADS} with empty caches | under 1,000 ms | {middle(paints)} ms |
| first thumbnails | | {middle(thumbnails)} ms |
| {SEARCHERS} searchers at once, {EACH} searches each: errors | 0 | {failed} |
| the same: a search, median (95%, longest) | | {statistics.median(milliseconds):,.0f} ms \
({milliseconds[int(0.95 * len(milliseconds))]:,.0f}, {milliseconds[-1]:,.0f}) |
| the same: searches a second | | {len(spent) / seconds:,.0f} |

| scrolling | frames | median ms | 99% | longest frame (goal: 50) | frames over 50 ms | longest task, processor ms |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

A frame is the time from one animation frame of the page's main thread to the next, in Chromium's trace; a task is what
that thread does in one piece, without the time in which others had the processor. The wheel is turned by Chromium's own
synthetic gesture, in a window of {SIZE["width"]} x {SIZE["height"]} pixels, without a graphics card. Server and browser
share the machine. What rushes past at more than 4,000 pixels a second is not fetched; it appears once the wheel stops.

Rows are synthetic: random vectors of {DIM} numbers, {THUMBNAILS:,} different thumbnails, a model of two small towers.

Machine: {machine()}, Chromium {chromium}.

Repeat: `python benchmarks/serve.py make DIR`, then `python benchmarks/serve.py measure DIR`.
"""


def middle(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def scrolled(name: str, frames: list[float], tasks: list[float]) -> str:
    ordered = sorted(frames)
    cells = [name, f"{len(frames):,}", f"{statistics.median(frames):.1f}", f"{ordered[int(0.99 * len(ordered))]:.1f}",
             f"{ordered[-1]:.1f}", str(sum(frame > 50 for frame in frames)), f"{max(tasks):.1f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    if options.verb == "make":
        make(options.folder, options.rows)
    else:
        REPORT.write_text(measure(options.folder), encoding="utf-8")
        print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
