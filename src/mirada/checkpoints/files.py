"""Where a published model's files are: a folder here, or (`hub.HubFiles`) a repository on the Hugging Face hub."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

from mirada.data.dataset import why
from mirada.errors import MiradaError

__all__ = ["Files", "LocalFiles", "read_json", "read_text"]


class Files(Protocol):
    """The files that one published model consists of.

    A name is relative to their folder, with `/` between its parts. `None` means that there is no such file; a file that
    is there and cannot be had (no network, a licence not accepted, damage) raises `MiradaError`.
    """

    where: str  # for messages

    def names(self) -> list[str]:
        """The files there are, sorted."""
        ...

    def path(self, name: str) -> Path | None:
        """The file on this machine, fetched first if it has to be."""
        ...

    def json(self, name: str) -> dict[str, Any] | None: ...

    def text(self, name: str) -> str | None: ...


class LocalFiles:
    """The files of a folder, such as `save_pretrained` writes."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.where = str(folder)
        if not self.folder.is_dir():
            raise MiradaError(f"There is no folder {self.where!r}: check the path.")

    def names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self.folder.iterdir() if entry.is_file())
        except OSError as error:
            raise MiradaError(f"Cannot list {self.where} ({why(error)}): check its permissions.") from error

    def path(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None

    def json(self, name: str) -> dict[str, Any] | None:
        return read_json(self.path(name))

    def text(self, name: str) -> str | None:
        return read_text(self.path(name))


def read_text(path: Path | None) -> str | None:
    """The file's text. None stays None."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MiradaError(f"Cannot read {path} as text ({why(error)}): is the file whole?") from error


def read_json(path: Path | None) -> dict[str, Any] | None:
    """The file's JSON object. None stays None."""
    text = read_text(path)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "is the file whole?"
        if text.startswith("version https://git-lfs"):
            hint = "it is a git-lfs pointer: run `git lfs pull` in its folder."
        raise MiradaError(f"{path} is not JSON ({str(error) or 'nested too deep'}): {hint}") from error
    if not isinstance(document, dict):
        raise MiradaError(f"{path} holds no JSON object: is it the right file?")
    return document
