"""Downloads from the hub that go wrong: they are continued, done again, or refused, and nothing is spoilt."""

import hashlib
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub
from tiny_repository import REPO, cache, kept, weights

from mirada.checkpoints import fetch
from mirada.checkpoints.hub import HubFiles
from mirada.errors import MiradaError


def test_a_download_that_is_cut_continues_where_it_was(tiny: Hub, tmp_path: Path) -> None:
    tiny.cut = {"model.safetensors": 2}
    said: list[tuple[str, int, int]] = []
    path = HubFiles(REPO, on_progress=lambda *what: said.append(what)).path("model.safetensors")
    assert path is not None
    assert path.read_bytes() == weights()
    half, size = len(weights()) // 2, len(weights())
    ranges = [one.headers["Range"] for one in tiny.downloads("model.safetensors")]
    assert ranges == [None, f"bytes={half}-", f"bytes={half + (size - half) // 2}-"]
    assert all(one.cdn for one in tiny.downloads("model.safetensors"))
    assert {what for what, _, _ in said} == {"downloading model.safetensors"}
    assert [done for _, done, _ in said] == sorted(done for _, done, _ in said)
    assert said[-1][1:] == (size, size)
    assert kept(tmp_path) == [path.resolve().name]


def test_another_run_continues_what_the_first_could_not_finish(tiny: Hub, tmp_path: Path) -> None:
    tiny.cut, tiny.cut_after = {"model.safetensors": 1}, 0.5
    tiny.fail = {"/model.safetensors": 503}
    tiny.fail_times = 0

    def then_down(*_: Any) -> None:
        tiny.fail_times = 10**9

    with pytest.raises(MiradaError, match=r"answers 503 for model\.safetensors of someone/tiny: try again later"):
        HubFiles(REPO, on_progress=then_down).path("model.safetensors")
    half, size = len(weights()) // 2, len(weights())
    assert kept(tmp_path) == [f"{hashlib.sha256(weights()).hexdigest()}.incomplete"]  # and nothing under a final name
    assert not list((cache(tmp_path)).rglob("model.safetensors"))

    tiny.fail, said = {}, list[tuple[str, int, int]]()
    path = HubFiles(REPO, on_progress=lambda *what: said.append(what)).path("model.safetensors")
    assert path is not None
    assert path.read_bytes() == weights()
    assert tiny.downloads("model.safetensors")[-1].headers["Range"] == f"bytes={half}-"
    assert said[-1] == ("downloading the rest of model.safetensors", size - half, size - half)
    assert kept(tmp_path) == [path.resolve().name]


def test_a_server_without_ranges_sends_all_again(tiny: Hub) -> None:
    tiny.cut, tiny.ranges = {"model.safetensors": 2}, False
    path = HubFiles(REPO).path("model.safetensors")
    assert path is not None
    assert path.read_bytes() == weights()


def test_a_download_that_gets_nowhere_ends(tiny: Hub, tmp_path: Path) -> None:
    tiny.cut, tiny.ranges = {"model.safetensors": 10**9}, False  # always the same half
    with pytest.raises(MiradaError, match=r"model\.safetensors of someone/tiny was cut 4 times .*run it again, and it"):
        HubFiles(REPO).path("model.safetensors")
    assert len(tiny.downloads("model.safetensors")) < 10
    assert all(name.endswith(".incomplete") for name in kept(tmp_path))


def test_what_an_interrupt_leaves_is_continued(tiny: Hub, tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HubFiles(REPO, on_progress=interrupt).path("model.safetensors")
    assert all(name.endswith(".incomplete") for name in kept(tmp_path))
    path = HubFiles(REPO).path("model.safetensors")
    assert path is not None
    assert path.read_bytes() == weights()
    assert tiny.downloads("model.safetensors")[-1].headers["Range"] is not None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_content_that_is_not_what_was_announced(tiny: Hub, tmp_path: Path, name: str) -> None:
    tiny.corrupt.add(name)
    with pytest.raises(
        MiradaError, match=rf"What came as {name} of someone/tiny is not what the hub announced.*deleted"
    ):
        HubFiles(REPO).path(name)
    assert kept(tmp_path) == []
    tiny.corrupt.clear()
    path = HubFiles(REPO).path(name)
    assert path is not None
    assert path.read_bytes() == (tiny.root / REPO / name).read_bytes()


@pytest.mark.usefixtures("tiny")
def test_a_bad_half_of_an_earlier_run_does_not_spoil_the_download(tmp_path: Path) -> None:
    blobs = cache(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / f"{hashlib.sha256(weights()).hexdigest()}.incomplete"
    for junk in (b"junk" * 1000, weights()[:-1] + b"?", weights() + b"more"):
        partial.write_bytes(junk)
        path = HubFiles(REPO).path("model.safetensors")
        assert path is not None
        assert path.read_bytes() == weights()
        shutil.rmtree(cache(tmp_path) / "snapshots")
        path.resolve().unlink(missing_ok=True)
        (blobs / partial.stem).unlink(missing_ok=True)


def test_a_file_shorter_than_announced(tiny: Hub, tmp_path: Path) -> None:
    tiny.short.add("model.safetensors")
    with pytest.raises(MiradaError, match=r"was cut 4 times|is not what the hub announced"):
        HubFiles(REPO).path("model.safetensors")
    assert all(name.endswith(".incomplete") for name in kept(tmp_path))


@pytest.mark.usefixtures("tiny")
def test_a_damaged_file_in_the_cache_is_fetched_again() -> None:
    path = HubFiles(REPO).path("model.safetensors")
    assert path is not None
    path.resolve().write_bytes(b"cut short")
    again = HubFiles(REPO).path("model.safetensors")
    assert again is not None
    assert again.read_bytes() == weights()


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a disk that fills up."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.usefixtures("tiny")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    with (
        no_file_larger_than(1 << 20),
        pytest.raises(MiradaError, match=r"disk of .* is full, and model\.safetensors of so"),
    ):
        HubFiles(REPO).path("model.safetensors")
    assert kept(tmp_path) == []  # the room is given back
    assert HubFiles(REPO).path("model.safetensors") is not None


def test_a_disk_without_room_is_seen_before(tiny: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(
        MiradaError, match=r"needs 3\.1 MB, and the disk of .* has 1\.0 MB left: make room, or set HF_HOME"
    ):
        HubFiles(REPO).path("model.safetensors")
    assert tiny.downloads("model.safetensors") == []


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("taken", ["hf", "hf/hub"])
def test_a_cache_whose_place_is_taken(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("a file")
    with pytest.raises(
        MiradaError, match=r"Cannot keep .* of someone/tiny in .*hf/hub \(.*\): set HF_HOME to a folder"
    ):
        HubFiles(REPO).path("config.json")
