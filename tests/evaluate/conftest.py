"""Where probes keep features."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of kept features, which every test has for itself."""
    return tmp_path / "cache" / "features"
