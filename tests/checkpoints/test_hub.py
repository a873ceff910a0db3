"""The hub, through the real download code and a server on this machine: what is fetched, kept, continued, refused."""

import hashlib
import resource
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hub_server import Hub

from mirada.checkpoints import fetch
from mirada.checkpoints import hub as client
from mirada.checkpoints.hub import Facts, HubFiles, facts
from mirada.checkpoints.weights import find_weights
from mirada.errors import MiradaError

REPO = "someone/tiny"
CARD = "---\nlicense: apache-2.0\n---\nA model.\n"
LARGE = 3 << 20  # bytes, so that it comes in several pieces


def weights(seed: int = 0, size: int = LARGE) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    return safetensors.torch.save({"blocks.0.weight": torch.randn(size // 4, generator=generator)})


@pytest.fixture
def tiny(hub: Hub) -> Hub:
    """The hub with one repository of four files."""
    hub.add(REPO, {"model.safetensors": weights(), "config.json": '{"depth": 1}', "README.md": CARD, "onnx/a.txt": "a"})
    return hub


def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub" / "models--someone--tiny"


def kept(tmp_path: Path) -> list[str]:
    """What the cache holds under a final name, and what is unfinished."""
    return sorted(path.name for path in (cache(tmp_path) / "blobs").iterdir())


# --- what there is, and how it is kept ---------------------------------------------------------------------------


def test_files_are_listed_read_and_fetched_once(tiny: Hub) -> None:
    files = HubFiles(REPO)
    assert files.names() == ["README.md", "config.json", "model.safetensors", "onnx/a.txt"]
    assert files.json("config.json") == {"depth": 1}
    assert files.text("README.md") == CARD
    assert (files.path("gone.json"), files.json("gone.json"), files.text("gone.txt")) == (None, None, None)
    path = files.path("model.safetensors")
    assert path is not None
    assert path.read_bytes() == weights()
    assert files.where == f"{tiny.url}/{REPO}"
    nested = files.path("onnx/a.txt")
    assert nested is not None
    assert nested.read_text() == "a"

    before = len(tiny.requests)
    again = HubFiles(REPO)
    assert again.path("model.safetensors") == path
    assert [one.path.partition("?")[0] for one in tiny.requests[before:]] == [f"/api/models/{REPO}"]  # and no more
    assert [one.headers["Authorization"] for one in tiny.requests if one.headers["Authorization"]] == []


def test_the_cache_is_that_of_the_other_libraries(tiny: Hub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    folder = tmp_path / "hf" / "hub"
    ours = HubFiles(REPO).path("model.safetensors")
    assert try_to_load_from_cache(REPO, "model.safetensors", cache_dir=folder) == str(ours)
    theirs = hf_hub_download(REPO, "config.json", cache_dir=folder, endpoint=tiny.url)
    count = len(tiny.downloads("config.json"))
    assert str(HubFiles(REPO).path("config.json")) == theirs
    assert len(tiny.downloads("config.json")) == count  # what they fetched is not fetched again
    digest = hashlib.sha256(weights()).hexdigest()
    assert (cache(tmp_path) / "blobs" / digest).is_file()


def test_a_model_that_changed_is_fetched_again_and_a_revision_stays(tiny: Hub) -> None:
    first = tiny.commit(REPO)
    assert HubFiles(REPO).json("config.json") == {"depth": 1}
    tiny.add(REPO, {"config.json": '{"depth": 2}'})
    assert HubFiles(REPO).json("config.json") == {"depth": 2}
    assert HubFiles(REPO, tiny.commit(REPO)).json("config.json") == {"depth": 2}
    with pytest.raises(MiradaError, match=f"{REPO} has no revision '{first}': see the branches and tags"):
        HubFiles(REPO, first).names()


def test_a_mirror_without_lists(tiny: Hub) -> None:
    tiny.lists = False
    files = HubFiles(REPO)
    assert files.names() == ["config.json", "model.safetensors"]
    assert files.text("README.md") == CARD  # asked for by name all the same
    assert files.path("gone.json") is None
    assert find_weights(files).shapes == {"blocks.0.weight": (LARGE // 4,)}
    tiny.add("someone/else", {"README.md": "nothing"})
    with pytest.raises(MiradaError, match="There is no model someone/else on http"):
        HubFiles("someone/else").names()


def test_sharded_weights_come_whole(hub: Hub) -> None:
    tensors = {f"block{i}": torch.randn(5) for i in range(2)}
    files: dict[str, bytes | str] = {
        f"model-{i + 1:05}-of-00002.safetensors": safetensors.torch.save({f"block{i}": tensors[f"block{i}"]})
        for i in range(2)
    }
    index = (
        '{"weight_map": {"block0": "model-00001-of-00002.safetensors", "block1": "model-00002-of-00002.safetensors"}}'
    )
    hub.add(REPO, {**files, "model.safetensors.index.json": index})
    told = facts(REPO)
    assert (told.checkpoint, told.size, told.cached) == (
        "model.safetensors.index.json", sum(map(len, files.values())), False,
    )  # fmt: skip
    found = find_weights(HubFiles(REPO))
    for name, tensor in tensors.items():
        assert torch.equal(found.get(name), tensor)
    assert facts(REPO).cached
    (hub.root / REPO / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        MiradaError, match=r"index\.json in http.* needs model-00002-of-00002\.safetensors, which is not"
    ):
        find_weights(HubFiles(REPO))


def test_facts_before_anything_is_fetched(tiny: Hub, tmp_path: Path) -> None:
    expected = Facts(REPO, tiny.commit(REPO), "apache-2.0", False, "model.safetensors", len(weights()), False)
    assert facts(REPO) == expected
    assert not any("resolve" in one.path for one in tiny.requests)
    assert not cache(tmp_path).exists()
    HubFiles(REPO).path("model.safetensors")
    assert facts(REPO) == expected._replace(cached=True)
    tiny.gated.add(REPO)
    tiny.add(REPO, {"README.md": "---\nlicense: other\nlicense_name: seer-licence\n---\n", "b.pth": b"PK"})
    assert facts(REPO)[2:4] == ("seer-licence", True)
    assert facts(REPO, first=["b.pth"])[4:6] == ("b.pth", 2)
    (tiny.root / REPO / "model.safetensors").unlink()
    (tiny.root / REPO / "b.pth").unlink()
    assert facts(REPO)[4:] == (None, None, False)


def test_two_at_once_fetch_it_once(tiny: Hub) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: HubFiles(REPO).path("model.safetensors"), range(2)))
    assert paths[0] is not None
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == weights()
    assert len(tiny.downloads("model.safetensors")) == 1


# --- downloads that go wrong -------------------------------------------------------------------------------------


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


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_no_such_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("", "hf_right"):
        monkeypatch.setenv("HF_TOKEN", token)
        for ask in (lambda: HubFiles("someone/gone").names(), lambda: HubFiles("someone/gone").path("config.json"),
                    lambda: facts("someone/gone")):  # fmt: skip
            with pytest.raises(
                MiradaError, match=r"There is no model someone/gone on http.*check the name.*hf auth login"
            ):
                ask()
    with pytest.raises(MiradaError, match="'some one/x' is no name of a model on the hub: these look like ORG/NAME"):
        HubFiles("some one/x")


def test_a_gated_model(tiny: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.gated.add(REPO)
    said = (
        rf"{REPO} is gated: accept its licence on {tiny.url}/{REPO}, then log in with `hf auth login` or set HF_TOKEN"
    )
    assert facts(REPO).gated
    with pytest.raises(MiradaError, match=said):
        HubFiles(REPO).path("model.safetensors")
    monkeypatch.setenv("HF_TOKEN", "hf_right")  # logged in, and the licence not accepted
    with pytest.raises(MiradaError, match=said):
        HubFiles(REPO).path("model.safetensors")
    tiny.tokens.add("hf_right")
    assert HubFiles(REPO).path("model.safetensors") is not None
    sent = {one.cdn: one.headers["Authorization"] for one in tiny.requests[-4:]}
    assert sent == {False: "Bearer hf_right", True: None}  # the token is for the hub alone


@pytest.mark.parametrize(("status", "said"), [
    (500, "answers 500 for its files of someone/tiny: try again later"), (403, "You may not read someone/tiny"),
    (429, "asks to be left alone for a while"), (418, "answers 418"),
])  # fmt: skip
def test_a_hub_that_is_not_well(tiny: Hub, status: int, said: str) -> None:
    tiny.fail = {"/api/models": status}
    with pytest.raises(MiradaError, match=said):
        HubFiles(REPO).names()


def test_a_hub_that_is_unwell_for_a_moment(tiny: Hub) -> None:
    tiny.fail, tiny.fail_times = {"/": 503}, 3
    assert len(HubFiles(REPO).names()) == 4
    tiny.fail_times = 3
    assert HubFiles(REPO).json("config.json") == {"depth": 1}
    tiny.fail_times = 2  # of which one is the CDN's
    assert HubFiles(REPO).path("model.safetensors") is not None


def test_a_server_that_is_no_hub(tiny: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", tiny.cdn)
    with pytest.raises(MiradaError, match=r"There is no model someone/tiny on http.*check the name and HF_ENDPOINT"):
        HubFiles(REPO).names()


# --- without a network -------------------------------------------------------------------------------------------


def test_offline_the_cache_is_enough(tiny: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = HubFiles(REPO).path("model.safetensors")
    HubFiles(REPO).path("config.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(tiny.requests)
    files = HubFiles(REPO)
    assert files.names() == ["config.json", "model.safetensors"]
    assert files.path("model.safetensors") == path
    assert files.json("config.json") == {"depth": 1}
    assert files.path("preprocessor_config.json") is None
    assert "HF_HUB_OFFLINE is set" in files.where
    assert find_weights(files).shapes == {"blocks.0.weight": (LARGE // 4,)}
    assert facts(REPO) == Facts(REPO, tiny.commit(REPO), None, None, "model.safetensors", len(weights()), True)
    assert len(tiny.requests) == before


def test_offline_what_is_missing_is_said(tiny: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hint = (
        rf"is not in the cache .*hf/hub, and HF_HUB_OFFLINE is set: run `hf download {REPO}` where there is a network"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for ask, what in (
        (lambda: HubFiles(REPO).json("config.json"), "config.json"),
        (lambda: find_weights(HubFiles(REPO)), "The checkpoint"), (lambda: facts(REPO), "The checkpoint"),
    ):  # fmt: skip
        with pytest.raises(MiradaError, match=f"{what} of {REPO} {hint}"):
            ask()
    assert tiny.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    HubFiles(REPO).path("config.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "ON")
    assert HubFiles(REPO).json("config.json") == {"depth": 1}
    with pytest.raises(MiradaError, match=f"The checkpoint of {REPO} {hint}"):
        find_weights(HubFiles(REPO))
    with pytest.raises(MiradaError, match=f"model.safetensors of {REPO} {hint}"):
        HubFiles(REPO).path("model.safetensors")


@pytest.mark.usefixtures("tiny")
def test_offline_since_the_library_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.constants, "HF_HUB_OFFLINE", True)  # the variable was set then, and is not any more
    with pytest.raises(MiradaError, match=r"config\.json of someone/tiny is not in the cache .* HF_HUB_OFFLINE is set"):
        HubFiles(REPO).path("config.json")


@pytest.mark.usefixtures("tiny")
def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    HubFiles(REPO).path("config.json")
    nowhere = "http://127.0.0.1:9"  # the discard port: nobody listens
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    assert HubFiles(REPO).json("config.json") == {"depth": 1}  # of the cache
    with pytest.raises(
        MiradaError, match=f"The checkpoint of {REPO} is not in the cache .*{nowhere} cannot be reached"
    ):
        HubFiles(REPO).names()
    with pytest.raises(MiradaError, match=f"Cannot reach {nowhere} for its files of someone/else .*check the network"):
        HubFiles("someone/else").names()


def test_a_hub_that_is_down_with_a_full_cache(tiny: Hub) -> None:
    HubFiles(REPO).path("model.safetensors")
    tiny.fail = {"/": 502}
    files = HubFiles(REPO)
    assert find_weights(files).shapes == {"blocks.0.weight": (LARGE // 4,)}
    assert "answers 502" in files.where


def test_nothing_is_printed(tiny: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    """Progress is for whoever asks for it; the library's own bars and notes stay out of the way."""
    tiny.cut = {"model.safetensors": 1}
    HubFiles(REPO).path("model.safetensors")
    assert capfd.readouterr() == ("", "")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert client._cache() == tmp_path / ".cache/huggingface/hub"
    settings: list[tuple[str, str, Any]] = [
        ("XDG_CACHE_HOME", "/x", Path("/x/huggingface/hub")), ("HF_HOME", "~/h", tmp_path / "h/hub"),
        ("HUGGINGFACE_HUB_CACHE", "/old", Path("/old")), ("HF_HUB_CACHE", "$HOME/new", tmp_path / "new"),
    ]  # fmt: skip
    for name, value, expected in settings:
        monkeypatch.setenv(name, value)
        assert client._cache() == expected
