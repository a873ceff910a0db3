"""What may be used is the least of what the machine has and what the container is given."""

import ctypes
import sys
from pathlib import Path

import pytest

from mirada import memory


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTAINER", (str(tmp_path / "missing"), str(limit)))
    machine = memory.memory()
    assert machine > 1 << 28
    limit.write_text("max\n")
    assert memory.memory() == machine
    limit.write_text("123456789\n")
    assert memory.memory() == 123456789
    limit.write_text(f"{machine * 2}\n")
    assert memory.memory() == machine


@pytest.mark.parametrize(("most", "understood", "set_last"), [(1 << 31, True, 3), (1 << 25, True, 4), (0, False, 2)])
def test_an_older_library_gets_what_it_takes(
    most: int, understood: bool, set_last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, key: int, value: int) -> int:
            asked.append((key, value))
            return int(key != memory._MMAP_THRESHOLD or value <= most)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    assert memory.keep_freed_memory() is understood
    assert len(asked) == set_last  # nothing else where the threshold was refused
