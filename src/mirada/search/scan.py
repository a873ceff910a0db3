"""What pictures there are now: files below a folder with their sizes and times, or the rows of tables and shards."""

import os
from collections.abc import Callable
from os.path import join
from typing import NamedTuple

from mirada.data.dataset import Skipped, Source, why
from mirada.data.decode import UndecodableImage
from mirada.data.folder import is_image, split_of, suffix
from mirada.data.sources import open_data
from mirada.data.tables import TABLES
from mirada.errors import MiradaError

__all__ = ["Entry", "Scan", "Unreachable", "scan"]


class Unreachable(Exception):  # noqa: N818  # nothing is wrong with the picture
    """A file cannot be read now, which says nothing about its content."""


class Entry(NamedTuple):
    """A picture as the file system sees it."""

    path: str  # absolute; surrogates stand for bytes that are no text
    size: int  # bytes, of the table or archive if it is in one
    time: int  # ns, likewise
    read: Callable[[], bytes]  # raises Unreachable, UndecodableImage


class Scan(NamedTuple):
    """What was found.

    Attributes:
        root: DATA as an absolute path.
        entries: the pictures, in order of their paths.
        container: whether they are rows of tables or members of archives, not files of their own.
        unreadable: folders that could not be looked into, and why: what lies below them is unknown, not gone.
    """

    root: str
    entries: list[Entry]
    container: bool
    unreadable: list[Skipped]

    def covers(self, path: str, source: str | None) -> bool:
        """Whether the row of an index would have been found here if it still existed."""
        if self.container:
            return source == self.root
        inside = source is None and path.startswith(self.root.rstrip(os.sep) + os.sep)
        return inside and not any(path.startswith(folder.path + os.sep) for folder in self.unreadable)


def scan(data: str | os.PathLike[str]) -> Scan:
    """Look at DATA in any of its forms. Raises `MiradaError` where there is no picture at all."""
    text = os.fspath(data)
    root = os.path.abspath(os.path.expanduser(text))
    if os.path.isdir(root):
        entries, unreadable = _walk(root)
        if entries and not any(split_of(stem) and suffix(name) in TABLES for stem, name in _top(root)):
            return Scan(root, entries, False, unreadable)
        if not entries and unreadable:
            raise MiradaError(f"Cannot read the folder {unreadable[0].path!r}: {unreadable[0].reason}; "
                              "give yourself access to it, or move it elsewhere.")  # fmt: skip
    elif os.path.isfile(root) and is_image(root):
        return Scan(root, [_entry(root, os.stat(root))], False, [])
    dataset = open_data(text if os.path.exists(text) or "{" in text else root)
    return Scan(root, [entry for source in dataset.splits.values() for entry in _members(root, source)], True, [])


def _top(root: str) -> list[tuple[str, str]]:
    return [(os.path.splitext(name)[0], name) for name in os.listdir(root) if name[0] != "."]


def _walk(root: str) -> tuple[list[Entry], list[Skipped]]:
    """Every picture file below `root` that is not hidden. Links are followed, each folder once. What cannot be looked
    into is listed, and what vanishes meanwhile is gone."""
    found: list[Entry] = []
    unreadable: list[Skipped] = []
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as inside:
                for entry in inside:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif is_image(entry.name):
                        try:
                            found.append(_entry(entry.path, entry.stat()))
                        except FileNotFoundError:  # gone, or a link to nowhere
                            continue
        except FileNotFoundError:
            if folder == root:
                raise MiradaError(
                    f"The folder {root!r} vanished while it was being read: nothing was changed."
                ) from None
        except OSError as error:
            unreadable.append(Skipped(folder, f"the folder cannot be read: {why(error)}"))
    return sorted(found, key=lambda entry: entry.path), unreadable


def _entry(path: str, status: os.stat_result) -> Entry:
    def read() -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise Unreachable(f"cannot be read: {why(error)}") from error

    return Entry(path, status.st_size, status.st_mtime_ns, read)


def _members(root: str, source: Source) -> list[Entry]:
    """Rows of tables and members of archives, stamped with the size and time of all that DATA consists of."""
    folder = root if os.path.isdir(root) else os.path.dirname(root)
    files = [join(folder, name) for name in os.listdir(folder)] if os.path.isdir(root) or "{" in root else [root]
    facts = [os.stat(file) for file in files if os.path.isfile(file)]
    size, time = sum(fact.st_size for fact in facts), max((fact.st_mtime_ns for fact in facts), default=0)

    def reader(index: int) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                return source.read(index)
            except UndecodableImage:
                raise
            except OSError as error:
                raise Unreachable(f"cannot be read: {why(error)}") from error

        return read

    paths = (os.path.abspath(source.path(index)) for index in range(len(source)))
    return [Entry(path, size, time, reader(index)) for index, path in enumerate(paths)]
