"""Keeping an index fresh while pictures come and go.

The folder is looked at every few seconds. That needs no library, and sees network drives and mounted phones, of whose
changes no system tells. A change counts once two looks in a row agree on it, so that a picture is not read while it is
being copied.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

from mirada.errors import MiradaError
from mirada.search.build import Busy, Changes
from mirada.search.index import Index
from mirada.search.scan import scan

__all__ = ["SECONDS", "changes_of"]

SECONDS = 2.0  # from one look to the next, at least; and ten times as long as a look takes


def changes_of(data: str | os.PathLike[str], where: str, **options: Any) -> Iterator[Changes]:
    """What was taken in, each time that something was: at first what came while the index was made. Goes on until it is
    stopped."""
    known: dict[str, tuple[int, int]] | None = None
    before = None
    while True:
        began = time.monotonic()
        now = _stamps(data)
        took = time.monotonic() - began
        if now is not None and now != known and now == before:
            try:
                _, changes = Index.update(data, where, **options)
            except MiradaError as error:
                if not isinstance(error, Busy) and _stamps(data) is not None:
                    raise
            else:  # what could not be done now, the next look tries again
                known = now
                if changes.added or changes.updated or changes.moved or changes.removed:
                    yield changes
        before = now
        time.sleep(max(SECONDS, 10 * took))


def _stamps(data: str | os.PathLike[str]) -> dict[str, tuple[int, int]] | None:
    """Sizes and times by path; None while there is nothing to be seen, as when a drive is taken out."""
    try:
        return {entry.path: (entry.size, entry.time) for entry in scan(data).entries}
    except MiradaError:
        return None
