"""A served index: shapes, copies of one, and files whose names and contents mean ill."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import NAMES, Served
from shapes import make_shapes
from starlette.testclient import TestClient
from towers import make_model

from mirada.search.index import Index
from mirada.serve.app import create_app
from mirada.serve.shelf import Shelf


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
