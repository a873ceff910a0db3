"""One attempt at a file of the hub: what is still lacking of it, checked against its hash before it gets its name."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.file_download import HfFileMetadata
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from mirada.data.dataset import why
from mirada.errors import MiradaError

__all__ = ["TIMEOUT", "Cut", "Progress", "fetch", "here_of", "said"]

Progress = Callable[[str, int, int], None]  # what is being done, how many bytes are done, of how many

WORTH_A_LINE = 1 << 20  # bytes; smaller files come without a word
TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT  # seconds without a byte
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ROOM = "make room, or set HF_HOME to a folder on another disk."


class Cut(Exception):  # noqa: N818  # it is no error as long as there is another attempt
    """A download that broke off; what has come is kept."""


def fetch(
    name: str, repo: str, metadata: HfFileMetadata, blob: Path, *, endpoint: str, begin: int,
    on_progress: Progress | None,
) -> None:  # fmt: skip
    """Fetch into `blob` what `here_of(blob)` says is still lacking. `begin` is what was there before the first attempt.

    Raises:
        Cut: if it broke off; another attempt continues.
        HfHubHTTPError: if the hub refuses.
        MiradaError: if there is no room, or if what came is not what the hub announced; then nothing of it is kept.
    """
    what, size, etag = f"{name} of {repo}", metadata.size, str(metadata.etag)
    partial, resumed = _partial(blob), here_of(blob) > 0
    try:
        if size is not None and here_of(blob) > size:
            partial.unlink()
        if size is None or here_of(blob) < size:
            if size is not None:
                _make_sure_of_room(what, size - here_of(blob), blob.parent)
            url = urljoin(f"{endpoint}/", metadata.location)
            told = None
            if on_progress is not None and size is not None and size > WORTH_A_LINE:
                told = _teller(on_progress, name, size, begin)
            _receive(url, partial, told, with_token=urlsplit(url)[:2] == urlsplit(endpoint)[:2])
        have = here_of(blob)
        if size is not None and have < size:
            raise Cut(f"{have:,} of {size:,} bytes came")
        if have == (have if size is None else size) and _is(partial, etag):
            os.replace(partial, blob)
            return
        partial.unlink()
    except HfHubHTTPError:
        raise
    except HTTPError as error:
        raise Cut(said(error)) from error
    except OSError as error:
        if error.errno in DISK_FULL:
            partial.unlink(missing_ok=True)
            raise MiradaError(f"The disk of {blob.parent} is full, and {what} did not fit: {ROOM}") from error
        raise MiradaError(
            f"Cannot keep {what} in {blob.parent} ({why(error)}): set HF_HOME to a folder of yours."
        ) from error
    if resumed:  # what an earlier attempt left may be to blame
        raise Cut("it was not what the hub had announced")
    raise MiradaError(
        f"What came as {what} is not what the hub announced (size {have:,} of {size}, etag {etag}), and was deleted: "
        "try again; if that does not help, something between here and the hub changes files."
    )


def here_of(blob: Path) -> int:
    """How many bytes of a file earlier attempts have brought."""
    partial = _partial(blob)
    return partial.stat().st_size if partial.exists() else 0


def said(error: Exception) -> str:
    """An exception's own first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


def _receive(url: str, partial: Path, tell: Callable[[int], None] | None, with_token: bool) -> None:
    """Append what the server sends after what is there, or begin again if it can only send all."""
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if not with_token:  # a signed address of another server: the token stays here
        headers.pop("authorization", None)
    with partial.open("ab") as file:
        have = file.tell()
        if have:
            headers["Range"] = f"bytes={have}-"
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as answer:
            if have and answer.status_code == 416:
                file.truncate(0)
                raise Cut("the rest of it was not to be had")
            hf_raise_for_status(answer)
            if have and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                file.truncate(0)
                have = 0
            for chunk in answer.iter_bytes():  # as they come: at a cut nothing is lost
                file.write(chunk)
                have += len(chunk)
                if tell is not None:
                    tell(have)


def _teller(on_progress: Progress, name: str, size: int, begin: int) -> Callable[[int], None]:
    def tell(have: int) -> None:
        start = min(begin, have)  # the time left is reckoned from what this run brings
        on_progress(f"downloading {'the rest of ' if start else ''}{name}", have - start, size - start)

    return tell


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _make_sure_of_room(what: str, size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise MiradaError(f"{what} needs {_amount(size)}, and the disk of {folder} has {_amount(free)} left: {ROOM}")


def _is(path: Path, etag: str) -> bool:
    """Whether a file has the hash that its etag is: sha256 of large files, git's of small ones. Others say nothing."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == etag
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        content = path.read_bytes()
        return etag in {hashlib.sha1(start + content).hexdigest() for start in (b"blob %d\0" % len(content), b"")}
    return True


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
