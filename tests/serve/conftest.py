"""A served index: shapes, copies of one, and files whose names and contents mean ill; and its page in a browser.

Whatever needs a browser is imported where it is used: the other tests run without one.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from served import NAMES, Served
from shapes import make_shapes
from starlette.testclient import TestClient
from towers import make_model

from mirada.search.index import Index
from mirada.serve.app import create_app
from mirada.serve.shelf import Shelf

if TYPE_CHECKING:
    from gallery import Opener
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="session")
def served_index(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Not to be changed; `own_index` may be."""
    folder = tmp_path_factory.mktemp("served")
    shapes = make_shapes(folder / "shapes", 30)
    for name in NAMES:
        shutil.copy(shapes / "red" / "007.png", shapes / name)
    model = make_model().save(folder / "two-towers")
    Index.update(shapes, folder / "index", model=str(model))
    return Served(shapes, str(folder / "index"))


@pytest.fixture(scope="session")
def client(served_index: Served) -> Iterator[TestClient]:
    with TestClient(create_app(Shelf(served_index.index)), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture
def own_index(served_index: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Nine pictures and their index, which the test may change; every request looks whether it has changed."""
    monkeypatch.setattr("mirada.serve.rows.FRESH", 0.0)
    shapes = make_shapes(tmp_path / "shapes", 3)
    Index.update(shapes, tmp_path / "index", model=str(Path(served_index.index).parent / "two-towers"))
    return Served(shapes, str(tmp_path / "index"))


@pytest.fixture
def own_client(own_index: Served) -> Iterator[TestClient]:
    with TestClient(create_app(Shelf(own_index.index)), base_url="http://127.0.0.1:8000") as client:
        yield client


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
    from gallery import TOKEN

    yield from running(create_app(shelf, TOKEN))


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Opener]:
    """Opens the page in a browser of its own; no script may fail in it, and no request may leave for another host."""
    from browsing import DESKTOP

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
