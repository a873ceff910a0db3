"""The hub without a network: the cache is enough, and what it lacks is said."""

from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub
from tiny_repository import LARGE, REPO, cache, weights

from mirada.checkpoints import hub as client
from mirada.checkpoints.hub import Facts, HubFiles, facts
from mirada.checkpoints.weights import find_weights
from mirada.errors import MiradaError


def test_offline_what_nobody_asked_for_may_be_there(tiny: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other libraries fetch a network without its pixels, which would then be assumed."""
    for name in ("config.json", "model.safetensors"):
        HubFiles(REPO).path(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MiradaError, match=r"preprocessor_config\.json of someone/tiny is not in the cache"):
        HubFiles(REPO).path("preprocessor_config.json")
    snapshot = cache(tmp_path) / "snapshots" / tiny.commit(REPO)
    (snapshot / ".gitattributes").write_text("")  # who fetches everything has it
    assert HubFiles(REPO).path("preprocessor_config.json") is None


def test_offline_the_cache_is_enough(tiny: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = HubFiles(REPO).path("model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        HubFiles(REPO).path(name)
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
