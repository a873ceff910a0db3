"""The hub, through the real download code and a server on this machine: what there is, and how it is kept."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hub_server import Hub
from tiny_repository import CARD, LARGE, REPO, cache, weights

from mirada.checkpoints.hub import Facts, HubFiles, facts
from mirada.checkpoints.weights import find_weights
from mirada.errors import MiradaError


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
