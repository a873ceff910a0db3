"""Printing without what a live line needs, for commands that answer at once."""

import json
import math
import sys
from typing import Any

__all__ = ["print_json", "shown"]


def shown(text: str) -> str:
    """A file name or label on one line, whatever characters it holds."""
    return text if text.isprintable() else repr(text)


def print_json(document: Any) -> None:
    """One JSON document on stdout. What is not a finite number becomes null, as JSON has no word for it."""
    text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # a file name that is not UTF-8, or a terminal that is not
        text = json.dumps(_finite(document), allow_nan=False)
    print(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
