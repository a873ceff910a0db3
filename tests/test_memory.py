"""What may be used is the least of what the machine has and what the container is given."""

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
