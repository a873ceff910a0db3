from hashlib import blake2b
from pathlib import Path

import pytest
import torch

from mirada.caching import add_tensors, cache_folder


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRADA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder("features") == Path("/somewhere/mirada/features")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/me")
    assert cache_folder("features") == Path("/me/.cache/mirada/features")


def test_nothing_is_kept_where_nothing_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRADA_CACHE", "")
    assert cache_folder("features") is None


def test_a_hash_tells_names_shapes_types_and_values_apart() -> None:
    def digest(name: str, tensor: torch.Tensor) -> str:
        total = blake2b()
        add_tensors(total, [(name, tensor)])
        return total.hexdigest()

    ones = torch.ones(2, 3)
    known = [
        digest("a", ones), digest("b", ones), digest("a", ones.mT), digest("a", ones.double()), digest("a", 2 * ones)
    ]  # fmt: skip
    assert len(set(known)) == len(known)
    assert digest("a", torch.ones(3, 2).mT) == known[0]  # however it lies in memory
