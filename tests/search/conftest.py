"""An index of shapes, made with a tiny model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from shapes import make_shapes
from towers import make_model

from mirada.search.index import Index


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model().save(tmp_path_factory.mktemp("models") / "two-towers"))


@pytest.fixture(scope="session")
def shapes_index(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The index of ninety pictures; not to be changed."""
    folder = tmp_path_factory.mktemp("searched")
    Index.update(make_shapes(folder / "shapes", 30), folder / "index", model=model_folder)
    return str(folder / "index")


@pytest.fixture
def indexed(new_shapes: Callable[[int], Path], model_folder: str, tmp_path: Path) -> tuple[Path, str]:
    """A folder of nine pictures that the test may change, and its index."""
    folder = new_shapes(3)
    Index.update(folder, tmp_path / "index", model=model_folder)
    return folder, str(tmp_path / "index")
