"""A folder's files as the loaders see them."""

from pathlib import Path

import pytest

from mirada.checkpoints.files import LocalFiles
from mirada.errors import MiradaError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "vit", "label": "ñandú"}', encoding="utf-8")
    (tmp_path / "merges.txt").write_text("a b\n")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"\xff\xfe")
    return tmp_path


def test_what_is_there_and_what_is_not(folder: Path) -> None:
    files = LocalFiles(folder)
    assert files.where == str(folder)
    assert files.names() == ["config.json", "merges.txt"]
    assert files.json("config.json") == {"model_type": "vit", "label": "ñandú"}
    assert files.text("merges.txt") == "a b\n"
    assert files.path("onnx/model.onnx") == folder / "onnx" / "model.onnx"
    assert (files.path("onnx"), files.path("gone"), files.json("gone"), files.text("gone")) == (None, None, None, None)


@pytest.mark.parametrize(("content", "said"), [
    (b"{", "config.json is not JSON .*is the file whole"), (b"", "not JSON"), (b"[1]", "holds no JSON object"),
    (b"\xff\xfe", "Cannot read .*config.json as text"), (b"[" * 100_000, "not JSON"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer: run `git lfs pull`"),
])  # fmt: skip
def test_files_that_are_not_what_they_should_be(folder: Path, content: bytes, said: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(MiradaError, match=said):
        LocalFiles(folder).json("config.json")


def test_a_folder_that_is_none(folder: Path) -> None:
    for path in (folder / "gone", folder / "config.json"):
        with pytest.raises(MiradaError, match=f"There is no folder '{path}': check the path"):
            LocalFiles(path)
