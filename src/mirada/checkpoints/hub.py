"""Models on the Hugging Face hub: `huggingface_hub` for its protocol and its cache, which other libraries share.

What `fetch.py` adds is what that library leaves out: a download continues where an earlier one, of this run or another,
was cut, is checked against the hash that the hub announced before it gets its final name, and asks for room first.
The environment (HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE) is read when a file is asked for.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is of the HTTP library that it uses
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.file_download import HfFileMetadata, repo_folder_name
from huggingface_hub.utils import WeakFileLock, validate_repo_id  # type: ignore[attr-defined]

from mirada.checkpoints.fetch import TIMEOUT, Cut, Progress, fetch, here_of, said
from mirada.checkpoints.files import read_json, read_text
from mirada.checkpoints.weights import CANONICAL, open_weights, weights_name
from mirada.data.dataset import why
from mirada.errors import MiradaError

__all__ = ["Facts", "HubFiles", "facts"]

ATTEMPTS = 4  # in a row that bring nothing new, after which a download gives up
PAUSE = 1.0  # seconds before the second attempt, and twice as long before each further one
PASSING = (408, 429, 500, 502, 503, 504)  # answers after which it is worth trying again

# What is asked for one by one where a mirror of the hub does not list a repository's files.
USUAL = (
    *CANONICAL, "config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
)  # fmt: skip

ESSENTIAL = (re.compile(r"\.(safetensors|bin|pth?|torch|ckpt)$"), re.compile(r"config\.json$"))  # no model is without


class Facts(NamedTuple):
    """What is known of a model on the hub before anything of it is fetched; from the cache alone, None where only the
    hub knows."""

    repository: str
    commit: str
    licence: str | None  # as its page says, such as "apache-2.0"
    gated: bool | None  # whether its licence has to be accepted on its page first
    checkpoint: str | None  # the file that would be loaded, or the index of its parts
    size: int | None  # bytes of the checkpoint
    cached: bool  # whether all of it is on this machine already


class _Listing(NamedTuple):
    """A repository's files, and their sizes where they are known."""

    commit: str
    sizes: dict[str, int | None]
    page: Any = None  # what the hub says about the repository


class HubFiles:
    """The files of a model repository on the hub, fetched when they are asked for and kept in the usual cache.

    `revision` is a branch, tag or commit. `on_progress` hears of every download of more than a megabyte. With
    HF_HUB_OFFLINE=1, and without a network, the files are those in the cache.
    """

    def __init__(self, repo: str, revision: str | None = None, on_progress: Progress | None = None) -> None:
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise MiradaError(f"{repo!r} is no name of a model on the hub: these look like ORG/NAME.") from error
        self.repo, self.revision, self.on_progress = repo, revision or constants.DEFAULT_REVISION, on_progress
        self.where = f"{_endpoint()}/{repo}" + (f" ({revision})" if revision else "")
        self._known: _Listing | None = None
        self._closed: str | None = None  # why the cache has to do
        self._complete = True  # whether the hub's list names all files

    def names(self) -> list[str]:
        listing = self._listing()
        return sorted((listing or self._here()).sizes)

    def path(self, name: str) -> Path | None:
        listing = self._listing()
        if listing is None:
            return self._from_cache(name)
        if name not in listing.sizes and self._complete:
            self._mark_absent(listing.commit, name)
            return None
        here = self._cached(name, listing) or self._download(name)
        if here is None:
            self._mark_absent(listing.commit, name)
        return here

    def json(self, name: str) -> dict[str, Any] | None:
        return read_json(self.path(name))

    def text(self, name: str) -> str | None:
        return read_text(self.path(name))

    def shapes(self, name: str) -> dict[str, tuple[int, ...]] | None:
        """What tensors a checkpoint has, from the beginning of its file alone; None for formats that do not begin with
        it, and where nobody can be asked."""
        listing = self._listing()
        if listing is None:
            here = self._from_cache(name)
        else:
            parts = _parts(name, listing.sizes)
            whole = bool(parts) and all(self._cached(part, listing) for part in parts)
            here = self._cached(name, listing) if whole else None
        if here is not None:
            return open_weights(here).shapes
        if listing is None or not name.endswith((".safetensors", ".safetensors.index.json")):
            return None
        hub = HfApi(endpoint=_endpoint())
        try:
            parts = _parts(name, dict.fromkeys(self.names())) if name.endswith(".json") else [name]
            found = [hub.parse_safetensors_file_metadata(self.repo, part, revision=self.revision)
                     for part in parts if part.endswith(".safetensors")]  # fmt: skip
        except (SafetensorsParsingError, HfHubHTTPError, HTTPError, OSError):  # of a gated one the facts are left
            return None
        return {key: tuple(tensor.shape) for one in found for key, tensor in one.tensors.items()}

    def facts(self, first: Sequence[str] = ()) -> Facts:
        """What is known of the model without fetching anything of it; `first` as for `find_weights`."""
        listing = self._listing() or self._here()
        try:
            name = weights_name(sorted(listing.sizes), self.where, first)
        except MiradaError:
            name = None
        parts = [] if name is None else _parts(name, listing.sizes)
        known = [size for part in parts if (size := listing.sizes[part]) is not None]
        page = listing.page
        return Facts(
            self.repo, listing.commit, page and _licence(page), None if page is None else bool(page.gated), name,
            sum(known) if known and len(known) == len(parts) else None,
            bool(parts) and all(self._cached(part, listing) for part in parts),
        )  # fmt: skip

    # --- what there is -------------------------------------------------------------------------------------------

    def _listing(self) -> _Listing | None:
        """What the hub has, asked for once. None: the cache has to do."""
        if self._known is None and self._closed is None:
            try:
                self._known = None if _offline() else self._ask()
                reason = "HF_HUB_OFFLINE is set"
            except OfflineModeIsEnabled:
                reason = "HF_HUB_OFFLINE is set"
            except HTTPError as error:
                status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
                if (status is not None and status not in PASSING) or not self._in_cache():
                    raise self._sentence(error, "its files") from error
                reason = f"{_endpoint()} answers {status}" if status else f"{_endpoint()} cannot be reached"
            except OSError as error:  # the library's own files: the token
                raise self._unusable("its files", error) from error
            if self._known is None:
                self._closed = reason
                self.where = f"{self.repo} in the cache {_cache()} ({reason})"
        return self._known

    def _ask(self) -> _Listing:
        for attempt in range(ATTEMPTS):
            try:
                revision = None if self.revision == constants.DEFAULT_REVISION else self.revision
                page = HfApi(endpoint=_endpoint()).model_info(
                    self.repo, revision=revision, files_metadata=True, timeout=TIMEOUT
                )
                return _Listing(str(page.sha), {file.rfilename: file.size for file in page.siblings or ()}, page)
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status in (404, 405, 501) and "X-Error-Code" not in error.response.headers:
                    return self._probe()
                if status not in PASSING or attempt + 1 == ATTEMPTS:
                    raise
                time.sleep(PAUSE * 2**attempt)
            except (ValueError, KeyError, TypeError):  # an answer, but not the hub's
                return self._probe()
        raise AssertionError

    def _probe(self) -> _Listing:
        """What there is of the usual files, on a mirror that has files and no lists of them."""
        self._complete = False
        found = {name: metadata for name in USUAL if (metadata := self._head(name)) is not None}
        if not found:
            raise MiradaError(f"There is no model {self.repo} on {_endpoint()}: check the name and HF_ENDPOINT.")
        commit = next(iter(found.values())).commit_hash
        return _Listing(str(commit), {name: metadata.size for name, metadata in found.items()})

    def _head(self, name: str) -> HfFileMetadata | None:
        """What the hub says about one file. None: there is no such file."""
        url = hf_hub_url(self.repo, name, revision=self.revision, endpoint=_endpoint())
        try:
            metadata = get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=_endpoint())
        except HfHubHTTPError as error:
            code = error.response.headers.get("X-Error-Code")
            if error.response.status_code == 404 and code in ("EntryNotFound", None):
                return None
            raise
        if not metadata.commit_hash or not metadata.etag or not re.fullmatch(r"[\w.-]+", metadata.etag):
            raise MiradaError(
                f"{url} is not answered as the hub does (no commit or etag): check HF_ENDPOINT and proxies."
            )
        return metadata

    # --- the cache -----------------------------------------------------------------------------------------------

    def _folder(self) -> Path:
        return _cache() / repo_folder_name(repo_id=self.repo, repo_type="model")

    def _snapshot(self) -> Path:
        """Where the files are of the newest commit that this machine knows of the revision."""
        try:
            commit = (self._folder() / "refs" / self.revision).read_text(encoding="utf-8").strip()
        except OSError:
            commit = self.revision
        return self._folder() / "snapshots" / commit

    def _in_cache(self) -> dict[str, int | None]:
        snapshot = self._snapshot()
        files = (path for path in snapshot.rglob("*") if path.is_file())
        return {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in files}

    def _here(self) -> _Listing:
        """The cache's files, if the checkpoint is among them."""
        sizes = self._in_cache()
        if not any(ESSENTIAL[0].search(name) for name in sizes):
            raise self._missing("The checkpoint")
        return _Listing(self._snapshot().name, sizes)

    def _from_cache(self, name: str) -> Path | None:
        """A file of the cache where there is nothing else. None where it is likely that the model has no such file."""
        path = self._snapshot() / name
        if path.is_file():
            return path
        names = self._in_cache()
        if not names or any(kind.search(name) and not any(map(kind.search, names)) for kind in ESSENTIAL):
            raise self._missing(name)
        # Others fetch the weights without it. Who fetched all files has the hub's own, too.
        if (
            name == "preprocessor_config.json"
            and ".gitattributes" not in names
            and not (self._absent(self._snapshot().name, name).is_file())
        ):
            raise self._missing(name)
        return None

    def _absent(self, commit: str, name: str) -> Path:
        """The library's own mark for a file that a commit has not."""
        return self._folder() / ".no_exist" / commit / name

    def _mark_absent(self, commit: str, name: str) -> None:
        """For one who has no network later."""
        with suppress(OSError):
            mark = self._absent(commit, name)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def _cached(self, name: str, listing: _Listing) -> Path | None:
        """A file of that commit if it is here and whole; what is here and not whole is removed."""
        path, size = self._folder() / "snapshots" / listing.commit / name, listing.sizes.get(name)
        if not path.is_file():
            return None
        if size is not None and path.stat().st_size != size:
            blob = path.parent / os.readlink(path) if path.is_symlink() else path
            for damaged in (blob, path):
                damaged.unlink(missing_ok=True)
            return None
        return path

    def _missing(self, what: str) -> MiradaError:
        return MiradaError(
            f"{what} of {self.repo} is not in the cache {_cache()}, and {self._closed}: run `hf download {self.repo}` "
            "where there is a network, or load it once there, or give a local folder."
        )

    # --- downloads -----------------------------------------------------------------------------------------------

    def _download(self, name: str) -> Path | None:
        """Fetch a file into the cache, in as many attempts as it takes while they bring something."""
        failures, begin, most = 0, 0, -1  # bytes that were here at first, and that were here at most
        blob: Path | None = None
        while True:
            try:
                metadata = self._head(name)
                if metadata is None:
                    return None
                blob = self._folder() / "blobs" / str(metadata.etag)
                with self._alone(blob):
                    if most < 0:
                        begin = most = here_of(blob)
                    if not blob.exists():
                        fetch(
                            name, self.repo, metadata, blob, endpoint=_endpoint(), begin=begin,
                            on_progress=self.on_progress,
                        )  # fmt: skip
                # Only puts the file where the library keeps it: links it, and notes which commit is the newest.
                return Path(
                    hf_hub_download(
                        self.repo, name, revision=self.revision, cache_dir=_cache(), endpoint=_endpoint(),
                        etag_timeout=TIMEOUT,
                    )
                )  # fmt: skip
            except OfflineModeIsEnabled as error:
                self._closed = "HF_HUB_OFFLINE is set"
                raise self._missing(name) from error
            except (Cut, HTTPError, LocalEntryNotFoundError) as error:
                here = 0 if blob is None else here_of(blob)
                failures = 1 if here > most else failures + 1
                most = max(most, here)
                passing = not isinstance(error, HfHubHTTPError) or error.response.status_code in PASSING
                if not passing or failures >= ATTEMPTS:
                    raise self._sentence(error, name) from error
                time.sleep(PAUSE * 2 ** (failures - 1))
            except OSError as error:
                raise self._unusable(name, error) from error

    @contextmanager
    def _alone(self, blob: Path) -> Iterator[None]:
        """Nobody else downloads the same file meanwhile: the library's own lock."""
        lock = _cache() / ".locks" / self._folder().name / f"{blob.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            yield

    def _unusable(self, what: str, error: OSError) -> MiradaError:
        return MiradaError(
            f"Cannot keep {what} of {self.repo} in {_cache()} ({why(error)}): set HF_HOME to a folder of yours."
        )

    def _sentence(self, error: Exception, what: str) -> MiradaError:
        """What went wrong between here and the hub, and what to do."""
        hub, login = _endpoint(), "log in with `hf auth login` or set HF_TOKEN"
        page = f"{hub}/{self.repo}"
        if isinstance(error, Cut):
            return MiradaError(
                f"The download of {what} of {self.repo} was cut {ATTEMPTS} times ({error}): run it again, and it will "
                "continue where it was cut."
            )
        if not isinstance(error, HfHubHTTPError):
            return MiradaError(
                f"Cannot reach {hub} for {what} of {self.repo} ({said(error)}): check the network and HF_ENDPOINT, or "
                "give a local folder."
            )
        status, message = error.response.status_code, error.response.headers.get("X-Error-Message", "").lower()
        if isinstance(error, GatedRepoError) or "gated" in message:
            return MiradaError(f"{self.repo} is gated: accept its licence on {page}, then {login}.")
        if isinstance(error, RevisionNotFoundError):
            return MiradaError(f"{self.repo} has no revision {self.revision!r}: see the branches and tags on {page}.")
        if status == 401 and "invalid credentials" in message:
            return MiradaError(f"{hub} does not accept your token: {login} with a new one.")
        if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
            return MiradaError(
                f"There is no model {self.repo} on {hub}: check the name, or, if it is private, {login}."
            )
        if status == 403:
            return MiradaError(f"You may not read {self.repo}: ask for access on {page}, then {login}.")
        if status == 429:
            return MiradaError(f"{hub} asks to be left alone for a while (429): wait some minutes, or {login}.")
        return MiradaError(f"{hub} answers {status} for {what} of {self.repo}: try again later.")


def facts(repo: str, revision: str | None = None, first: Sequence[str] = ()) -> Facts:
    """What is known of a model on the hub: licence, whether it is gated, how much would be fetched. Nothing is."""
    return HubFiles(repo, revision).facts(first)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _offline() -> bool:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in constants.ENV_VARS_TRUE_VALUES for name in names)


def _cache() -> Path:
    """The folder that all libraries keep in what they fetch from the hub."""
    if folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(folder)).expanduser()
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def _parts(name: str, sizes: dict[str, int | None]) -> list[str]:
    """The files of a checkpoint: itself, or those that its index will name."""
    if not name.endswith(".index.json"):
        return [name]
    stem, suffix = os.path.splitext(name.removesuffix(".index.json"))
    shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+{re.escape(suffix)}")
    return [one for one in sizes if shard.fullmatch(one)]


def _licence(page: Any) -> str | None:
    card = page.card_data or {}
    licence = card.get("license")
    if licence in (None, "other"):
        licence = card.get("license_name") or licence
    tag = next((tag.removeprefix("license:") for tag in page.tags or () if tag.startswith("license:")), None)
    return str(licence) if licence else tag
