"""What is looked at, and what is taken for gone: folders, links, drives, tables, archives."""

import io
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from commands import png
from shapes import shape_picture
from updates import contents, counts

import mirada.search.scan as scan_module
from mirada.data.decode import UndecodableImage
from mirada.data.shards import Shard
from mirada.errors import MiradaError
from mirada.search.index import Index


def test_a_folder_that_cannot_be_read_keeps_its_rows(
    indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, where = indexed
    scandir = os.scandir

    def locked(path: str) -> Any:  # as the superuser may read everything, whoever runs the tests
        if str(path).endswith("red"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", locked)
    _, changes = Index.update(folder, where)
    assert changes.removed == 0
    assert [skipped.path for skipped in changes.skipped] == [str(folder / "red")]
    assert len(Index(where)) == 9


def test_links_that_cannot_be_followed_keep_their_rows(indexed: tuple[Path, str], tmp_path: Path) -> None:
    folder, where = indexed
    (tmp_path / "drive").mkdir()
    for number in range(2):
        shape_picture("red", 60 + number).save(tmp_path / "drive" / f"{number}.png")
    (folder / "drive").symlink_to(tmp_path / "drive")
    (folder / "one.png").symlink_to(tmp_path / "drive" / "0.png")
    assert counts(folder, where) == (3, 0, 0, 0, 2)
    (tmp_path / "drive").rename(tmp_path / "out")
    (folder / "loop").symlink_to("loop")
    _, changes = Index.update(folder, where)
    assert (changes.removed, changes.unchanged) == (0, 9)
    assert sorted(Path(skipped.path).name for skipped in changes.skipped) == ["drive", "loop", "one.png"]
    (tmp_path / "out").rename(tmp_path / "drive")
    (tmp_path / "drive" / "0.png").unlink()  # its folder is there, and it is not
    assert counts(folder, where) == (0, 0, 0, 2, 0)
    assert len(Index(where)) == 10


def test_an_empty_folder_takes_nothing_away(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    shutil.rmtree(folder)
    with pytest.raises(MiradaError, match="There is no"):
        Index.update(folder, where)
    folder.mkdir()
    with pytest.raises(MiradaError, match="no images"):
        Index.update(folder, where)
    assert len(Index(where)) == 9


def test_a_drive_that_goes_out_under_the_look_takes_nothing_away(
    indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, where = indexed
    look, looked = os.scandir, []

    def out(path: str) -> Any:
        looked.append(path)
        if len(looked) == 2:
            folder.rename(folder.with_name("away"))
        return look(path)

    monkeypatch.setattr(scan_module.os, "scandir", out)
    with pytest.raises(MiradaError, match="vanished while it was being read: nothing was changed"):
        Index.update(folder, where)
    monkeypatch.undo()
    folder.with_name("away").rename(folder)
    assert counts(folder, where) == (0, 0, 0, 0, 0)


def test_tables_are_indexed_row_by_row(tmp_path: Path, model_folder: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(numbers: list[int]) -> Path:
        pq.write_table(pa.table({"image": [png("red", number) for number in numbers]}), tmp_path / "a.parquet")
        os.utime(tmp_path / "a.parquet", ns=(time.time_ns(), time.time_ns() - 10**10 * len(numbers)))
        return tmp_path / "a.parquet"

    where = str(tmp_path / "index")
    assert counts(write([1, 2, 3]), where, model=model_folder) == (3, 0, 0, 0, 3)
    assert counts(tmp_path / "a.parquet", where) == (0, 0, 0, 0, 0)
    assert counts(write([1, 2, 3, 4]), where) == (1, 0, 0, 0, 1)
    assert counts(write([1, 2]), where) == (0, 0, 0, 2, 0)


def test_files_that_a_table_names_are_looked_at(tmp_path: Path, model_folder: str) -> None:
    for place in ("near", "drive"):
        (tmp_path / place).mkdir()
        for number in range(2):
            shape_picture("red", 10 * len(place) + number).save(tmp_path / place / f"{number}.png")
    table, where = tmp_path / "pictures.csv", str(tmp_path / "index")
    table.write_text("path\nnear/0.png\nnear/1.png\ndrive/0.png\ndrive/1.png\n")
    assert counts(table, where, model=model_folder) == (4, 0, 0, 0, 4)
    assert counts(table, where) == (0, 0, 0, 0, 0)
    shape_picture("blue", 3).save(tmp_path / "near" / "0.png")
    os.utime(tmp_path / "near" / "0.png", (1, 1))
    assert counts(table, where) == (0, 1, 0, 0, 1)
    (tmp_path / "drive").rename(tmp_path / "out")
    (tmp_path / "near" / "1.png").unlink()
    index, changes = Index.update(table, where)
    assert (changes.removed, changes.unchanged) == (1, 1)
    assert [skipped.path for skipped in changes.skipped] == [
        str(tmp_path / name) for name in ("near/1.png", "drive/0.png", "drive/1.png")
    ]  # fmt: skip
    sizes = {row["path"]: row["size"] for row in index.rows()[1]}
    assert sizes[str(tmp_path / "near" / "0.png")] == (tmp_path / "near" / "0.png").stat().st_size


def test_a_picture_that_a_table_names_and_that_is_gone_is_gone(tmp_path: Path, model_folder: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(3):
        shape_picture("red", number).save(tmp_path / f"{number}.png")
    rows = [{"bytes": None, "path": f"{number}.png"} for number in range(3)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table, where = tmp_path / "a.parquet", str(tmp_path / "index")
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), table)
    assert counts(table, where, model=model_folder) == (3, 0, 0, 0, 3)
    (tmp_path / "1.png").unlink()
    os.utime(table, (1, 1))
    assert counts(table, where) == (0, 0, 0, 1, 0)


def test_an_archive_that_cannot_be_read_now_loses_nothing(
    tmp_path: Path, model_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(count: int) -> Path:
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            for number in range(count):
                member = tarfile.TarInfo(f"{number}.png")
                member.size = len(png("red", number))
                tar.addfile(member, io.BytesIO(png("red", number)))
        return tmp_path / "x.tar"

    where = str(tmp_path / "index")
    assert counts(write(2), where, model=model_folder) == (2, 0, 0, 0, 2)
    write(3)

    def fail(*_: Any) -> bytes:
        try:
            raise OSError(5, "Input/output error")
        except OSError as error:
            raise UndecodableImage("cannot be read: input/output error") from error

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "read", fail)
        _, changes = Index.update(tmp_path / "x.tar", where)
    assert (changes.added, changes.removed, len(changes.skipped)) == (0, 0, 3)
    assert counts(tmp_path / "x.tar", where) == (1, 0, 0, 0, 1)


def test_shards_of_several_folders(tmp_path: Path, model_folder: str) -> None:
    for folder in range(2):
        (tmp_path / f"part-{folder}").mkdir()
        with tarfile.open(tmp_path / f"part-{folder}" / "x.tar", "w") as tar:
            member = tarfile.TarInfo("1.png")
            member.size = len(png("red", folder))
            tar.addfile(member, io.BytesIO(png("red", folder)))
    data, where = tmp_path / "part-{0..1}" / "x.tar", str(tmp_path / "index")
    assert counts(data, where, model=model_folder) == (2, 0, 0, 0, 2)
    assert counts(data, where) == (0, 0, 0, 0, 0)
    assert sorted(contents(where)) == [str(tmp_path / f"part-{folder}" / "x.tar" / "1.png") for folder in range(2)]
