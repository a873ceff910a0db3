"""Where the page lies."""

from pathlib import Path

__all__ = ["PAGES"]

PAGES = Path(__file__).parent / "pages"
