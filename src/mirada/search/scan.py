"""What pictures there are now: files below a folder with their sizes and times, or the rows of tables and shards."""

import os
from collections.abc import Callable
from os.path import join
from typing import NamedTuple

from mirada.data.dataset import Files, Joined, Skipped, Source, why
from mirada.data.decode import UndecodableImage
from mirada.data.folder import is_image, split_of, suffix
from mirada.data.shards import expand_braces
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
        container: whether tables or archives name them.
        skipped: what could not be looked at, and why.
        unknown: the paths among these of which nobody can tell what is there: the drive may be out.
    """

    root: str
    entries: list[Entry]
    container: bool
    skipped: list[Skipped]
    unknown: list[str]

    def covers(self, path: str, source: str | None) -> bool:
        """Whether the row of an index would have been found here if it still existed."""
        if self.container:
            inside = source == self.root
        else:
            inside = source is None and path.startswith(self.root.rstrip(os.sep) + os.sep)
        return inside and not any(path == place or path.startswith(place + os.sep) for place in self.unknown)


def scan(data: str | os.PathLike[str]) -> Scan:
    """Look at DATA in any of its forms. Raises `MiradaError` where there is no picture at all."""
    text = os.fspath(data)
    root = os.path.abspath(os.path.expanduser(text))
    if os.path.isdir(root):
        entries, skipped = _walk(root)
        if entries and not any(split_of(stem) and suffix(name) in TABLES for stem, name in _top(root)):
            return Scan(root, entries, False, skipped, [one.path for one in skipped])
        if not entries and skipped:
            raise MiradaError(f"There is nothing to index in {root!r}, where {skipped[0].path!r} cannot be looked at "
                              f"({skipped[0].reason}): give yourself access to it, or move it elsewhere.")  # fmt: skip
    elif os.path.isfile(root) and is_image(root):
        return Scan(root, [_entry(root, os.stat(root))], False, [], [])
    as_given = os.path.exists(text) or "{" in text or text.startswith("hf:")
    dataset = open_data(text if as_given else root, new_classes=True, everything=True)
    entries = [entry for source in dataset.splits.values() for entry in _members(root, source)]
    skipped = [Skipped(os.path.abspath(path), reason) for path, reason in dataset.skipped]
    unknown = [one.path for one in skipped if not os.path.isdir(os.path.dirname(one.path))]
    return Scan(root, entries, True, skipped, unknown)


def _top(root: str) -> list[tuple[str, str]]:
    return [(os.path.splitext(name)[0], name) for name in os.listdir(root) if name[0] != "."]


def _is_missing(error: OSError, files: list[str]) -> bool:
    """Whether it is a picture that a table names that is missing, from a folder that is there."""
    if not isinstance(error, FileNotFoundError) or error.filename is None:
        return False
    missing = os.path.abspath(error.filename)
    return missing not in files and os.path.isdir(os.path.dirname(missing))


def _walk(root: str) -> tuple[list[Entry], list[Skipped]]:
    """Every picture file below `root` that is not hidden. Links are followed, each folder once. What cannot be looked
    into is listed, and what vanishes meanwhile is gone."""
    found: list[Entry] = []
    skipped: list[Skipped] = []
    vanished = MiradaError(f"The folder {root!r} vanished while it was being read: nothing was changed.")
    waiting, seen = [root], set()
    began = None
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            began = began or (status.st_dev, status.st_ino)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as inside:
                for entry in inside:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    try:
                        if entry.is_dir():
                            waiting.append(entry.path)
                        elif is_image(entry.name):
                            found.append(_entry(entry.path, entry.stat()))
                        elif entry.is_symlink():
                            entry.stat()
                    except OSError as error:
                        if _may_be_out(entry, error):
                            skipped.append(Skipped(entry.path, f"the link cannot be followed: {why(error)}"))
        except FileNotFoundError:
            if folder == root:
                raise vanished from None
        except OSError as error:
            skipped.append(Skipped(folder, f"the folder cannot be read: {why(error)}"))
    if began is not None and _identity(root) != began:  # all that was missing went with it
        raise vanished
    return sorted(found, key=lambda entry: entry.path), skipped


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _may_be_out(entry: os.DirEntry[str], error: OSError) -> bool:
    """Whether what could not be looked at may come back as it was: not if it vanished just now, or if a link names a
    picture that is missing from a folder that is there."""
    if not isinstance(error, FileNotFoundError):
        return True
    if not entry.is_symlink():
        return False
    return not (is_image(entry.name) and os.path.isdir(os.path.dirname(os.path.realpath(entry.path))))


def _entry(path: str, status: os.stat_result | None) -> Entry:
    def read() -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise Unreachable(f"cannot be read: {why(error)}") from error

    return Entry(path, status.st_size, status.st_mtime_ns, read) if status else Entry(path, -1, -1, read)


def _named(path: str) -> Entry:
    """A file that was there a moment ago, and may have become unreachable."""
    try:
        return _entry(path, os.stat(path))
    except OSError:
        return _entry(path, None)


def _members(root: str, source: Source) -> list[Entry]:
    """The files that a table names; or rows of tables and members of archives, stamped with the size and time of all
    that DATA consists of."""
    if isinstance(source, Joined):
        return [entry for part in source.parts for entry in _members(root, part)]
    paths = [os.path.abspath(source.path(index)) for index in range(len(source))]
    if isinstance(source, Files):
        return [_named(path) for path in paths]
    if os.path.isdir(root):
        files = [join(root, name) for name in os.listdir(root)]
    else:
        files = [root] if os.path.exists(root) else expand_braces(root)
    facts = [os.stat(file) for file in files if os.path.isfile(file)]
    size, time = sum(fact.st_size for fact in facts), max((fact.st_mtime_ns for fact in facts), default=0)

    def reader(index: int) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                return source.read(index)
            except UndecodableImage as error:
                cause = error.__cause__
                if not isinstance(cause, OSError) or _is_missing(cause, files):
                    raise
                raise Unreachable(error.reason) from error

        return read

    return [Entry(path, size, time, reader(index)) for index, path in enumerate(paths)]
