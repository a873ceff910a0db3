"""The table of an index: what is one, which one it is, where there is room for it, and what is kept beside it."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from lancedb.index import BTree
from updates import counts

import mirada.search.table as table_module
from mirada.errors import MiradaError
from mirada.search.index import Index
from mirada.search.table import FORMAT, Facts


def test_what_is_no_index(tmp_path: Path, model_folder: str, indexed: tuple[Path, str]) -> None:
    with pytest.raises(MiradaError, match="There is no index in"):
        Index(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    folder, where = indexed
    with pytest.raises(MiradaError, match="holds other things already"):
        Index.update(folder, folder, model=model_folder)
    index = Index(where)
    for version, said in ((FORMAT + 1, "newer Mirada"), (0, "older Mirada")):
        changed = index.table.schema.metadata[b"mirada"].replace(b'"format": 1', b'"format": %d' % version)
        place = tmp_path / f"version{version}"
        import lancedb

        lancedb.connect(str(place)).create_table("images", schema=index.table.schema.with_metadata({"mirada": changed}))
        with pytest.raises(MiradaError, match=said):
            Index(place)


def test_there_must_be_room_before_a_model_is_fetched(
    indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = indexed
    monkeypatch.setattr("mirada.search.index.open_model", lambda *_, **__: pytest.fail("it was fetched"))
    with pytest.raises(MiradaError, match="holds other things already"):
        Index.update(folder, folder)


def test_a_file_in_its_place(tmp_path: Path, indexed: tuple[Path, str]) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MiradaError, match="is a file: give --index a new folder"):
        Index.update(indexed[0], tmp_path / "file")


def test_what_a_kill_leaves_of_a_new_index_is_no_index(tmp_path: Path, indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    (tmp_path / "half" / "images.lance" / "_versions").mkdir(parents=True)
    (tmp_path / "half" / "facts.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(MiradaError, match="There is no index in"):
        Index(tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "facts.lance")
    assert counts(folder, tmp_path / "half", model=Index(where).made.model) == (9, 0, 0, 0, 9)
    for file in (tmp_path / "half" / "facts.lance" / "_versions").iterdir():
        file.unlink()
    assert counts(folder, tmp_path / "half") == (0, 0, 0, 0, 0)
    assert Facts(str(tmp_path / "half")).get("background") is not None
    (tmp_path / "half" / "notes.txt").write_text("x")
    shutil.rmtree(tmp_path / "half" / "images.lance")
    with pytest.raises(MiradaError, match="holds other things already"):
        Index.update(folder, tmp_path / "half", model=Index(where).made.model)


def test_an_index_is_the_same_one_while_rows_come_and_go(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    index = Index(where)
    (folder / "red" / "000.png").unlink()
    Index.update(folder, where)
    index.table.create_index("path", config=BTree())
    assert index.is_there()
    shutil.rmtree(where)
    assert not index.is_there()


def test_what_was_measured_does_not_pile_up(indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts(indexed[1])
    monkeypatch.setattr(table_module, "timedelta", lambda **_: timedelta(milliseconds=1))
    for number in range(40):
        facts.put("large", bytes([number]) * 100_000)
    kept = sum(file.stat().st_size for file in (Path(indexed[1]) / "facts.lance").rglob("*") if file.is_file())
    assert kept < 25 * 100_000
    assert facts.get("large") == bytes([39]) * 100_000
