"""Opening DATA in any of its forms: `open_data(path)` looks at what is there and picks the reader."""

import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from os.path import basename, join, splitext

from mirada.data.dataset import DataSet, Files, Joined, Skipped, Source, few, number_classes, require_classes, why
from mirada.data.folder import is_image, open_folder, split_of, suffix, visible_files
from mirada.data.idx import is_idx, open_idx
from mirada.data.shards import expand_braces, open_shard
from mirada.data.tables import TABLES, open_table
from mirada.errors import MiradaError

__all__ = ["DataSet", "Skipped", "Source", "list_images", "open_data", "require_classes"]

SPLITS = ("train", "val", "test", "all")
FORMS = "a folder of images, a .parquet, .csv or .jsonl table, or .tar shards"


def open_data(
    path: str | os.PathLike[str], *, strict: bool = False, in_memory: int = 2**30, new_classes: bool = False,
    everything: bool = False,
) -> DataSet:  # fmt: skip
    """Open a folder, a table, shards `name-{000..127}.tar`, or a folder of tables, shards or IDX files.

    Args:
        path: DATA, as the command line takes it.
        strict: raise for what would otherwise be skipped.
        in_memory: parquet files of up to so many bytes together are held in memory.
        new_classes: whether other splits may have classes that the train split has not.
        everything: whether shards whose names are of no split count where others' are.

    Raises:
        MiradaError: if there is nothing to read, or the labels contradict each other.
    """
    text = os.fspath(path)
    if text.startswith("hf:"):
        raise MiradaError(f"Cannot read {text!r} yet: save the data set as parquet files and give their folder.")
    skipped: list[Skipped] = []
    splits = _open(text, skipped, in_memory, everything)
    if empty := [split for split in splits if not len(splits[split])]:
        raise MiradaError(f"There are no images in the {empty[0]} split of {text!r}: add some, or take it out.")
    if strict and skipped:
        raise MiradaError(f"{skipped[0].path!r} cannot be used: {skipped[0].reason}.")
    return DataSet(splits, number_classes(splits, new_classes), skipped)


def list_images(paths: Sequence[str | os.PathLike[str]]) -> Source:
    """Image files as they are given, and those below the folders among them; without labels."""
    found: list[str] = []
    given = [os.fspath(path) for path in paths]
    for path in given:
        _require_there(path)
        folder = os.path.isdir(path)
        found += [join(path, file) for file in visible_files(path) if is_image(file)] if folder else [path]
    if not found:
        raise MiradaError(f"There are no images in {few(given) or 'nothing'}: give image files, or folders of them.")
    return Files("", found)


def _open(path: str, skipped: list[Skipped], in_memory: int, everything: bool) -> dict[str, Source]:
    shards = expand_braces(path)
    if shards and shards != [path] and not os.path.exists(path):
        for shard in shards:
            _require_there(shard)
        return _by_split(shards, skipped, in_memory, everything)
    _require_there(path)
    if not os.path.isdir(path):
        if suffix(path) not in (*TABLES, ".tar"):
            raise MiradaError(f"Cannot read {path!r} as data: give {FORMS}.")
        return _by_split([path], skipped, in_memory, everything)
    return _open_folder(path, visible_files(path), skipped, in_memory, everything)


def _open_folder(
    root: str, files: list[str], skipped: list[Skipped], in_memory: int, everything: bool
) -> dict[str, Source]:  # fmt: skip
    """What a folder holds. Tables named after splits come first, because their paths may point to the images beside
    them; shards come last, because they may be what the images were unpacked from."""
    top = [file for file in files if os.sep not in file]
    tables = [join(root, file) for file in top if suffix(file) in TABLES]
    shards = [join(root, file) for file in top if suffix(file) == ".tar"]
    if is_idx(top):
        return open_idx(root, top)
    if named := [table for table in tables if _split(table)]:
        return _by_split(named, skipped, in_memory, everything)
    if any(is_image(file) for file in files):
        return open_folder(root, files, skipped)
    if len(tables) > 1:
        raise MiradaError(f"{root!r} holds several tables, {few(map(basename, tables))}: give the path of one of them.")
    if tables or shards:
        return _by_split(tables or shards, skipped, in_memory, everything)
    holds = f"only {few(files, 3)}" if files else "the folder is empty"
    raise MiradaError(f"There are no images in {root!r} ({holds}): give {FORMS}.")


def _by_split(paths: Sequence[str], skipped: list[Skipped], in_memory: int, everything: bool) -> dict[str, Source]:
    """Open tables or shards, and join those of one split."""
    keep = sum(os.path.getsize(path) for path in paths) <= in_memory
    opener: Callable[[str], Source]
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(_split(path) or "all", []).append(path)
    if "train" in groups and not everything:
        skipped += [Skipped(path, "its name is of no split, as others' are") for path in groups.pop("all", [])]
    splits: dict[str, Source] = {}
    for split in sorted(groups, key=SPLITS.index):
        group = groups[split]
        if len({suffix(path) for path in group}) > 1:
            raise MiradaError(f"{few(group)} all are the {split} split: keep one form of it.")
        opener = open_shard if suffix(group[0]) == ".tar" else lambda path: open_table(path, skipped, in_memory=keep)
        parts = [opener(path) for path in group]
        splits[split] = parts[0] if len(parts) == 1 else Joined(parts)
    return splits


def _split(path: str) -> str | None:
    return split_of(splitext(basename(path))[0])


def _require_there(path: str) -> None:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        parent, missing = os.path.split(os.path.abspath(path))
        while not os.path.isdir(parent):
            parent, missing = os.path.split(parent)
        nearest = get_close_matches(missing, _names(parent), 1, 0.5)
        hint = f"did you mean {join(parent, nearest[0])!r}?" if nearest else "check the path."
        raise MiradaError(f"There is no {path!r}, for {parent!r} has no {missing!r}: {hint}") from None
    except (OSError, ValueError) as error:
        raise MiradaError(f"Cannot open {path!r} ({why(error)}): check the path and your access to it.") from error


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)[:10_000]
    except OSError:
        return []
