"""What an index holds, and what its methods give."""

import io
import os
import shutil
import struct
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import png
from filelock import FileLock
from lancedb.index import BTree
from PIL import Image
from shapes import shape_picture
from towers import make_model

import mirada.search.index as module
import mirada.search.scan as scan_module
import mirada.search.table as table_module
import mirada.search.vectors as vectors_module
from mirada.data.decode import UndecodableImage
from mirada.data.shards import Shard
from mirada.errors import MiradaError, Misuse
from mirada.search.build import writing
from mirada.search.index import Index, NoSuchPicture
from mirada.search.picture import _degrees
from mirada.search.table import FORMAT, Facts, rows_of
from mirada.search.vectors import as_matrix, build_index_once


def contents(where: str) -> dict[str, np.ndarray]:
    rows = rows_of(Index(where).table, ["path", "vector"])
    assert len(set(rows["path"].to_pylist())) == rows.num_rows
    return dict(zip(rows["path"].to_pylist(), as_matrix(rows), strict=True))


def counts(folder: Path, where: str, **options: Any) -> tuple[int, int, int, int, int]:
    _, changes = Index.update(folder, where, **options)
    return changes.added, changes.updated, changes.moved, changes.removed, changes.embedded


def test_vectors_are_those_of_the_model(indexed: tuple[Path, str], model_folder: str) -> None:
    folder, where = indexed
    found = contents(where)
    assert sorted(found) == sorted(str(path) for path in folder.rglob("*.png"))
    expected = make_model().encode_image(list(found), normalize=True).numpy()
    np.testing.assert_allclose(np.stack(list(found.values())), expected, atol=5e-3)  # fp16
    assert Index(where).made.model == model_folder


def test_only_what_changed_is_embedded(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    assert counts(folder, where) == (0, 0, 0, 0, 0)
    shape_picture("red", 50).save(folder / "red" / "new.png")
    shutil.copy(folder / "red" / "new.png", folder / "copy.png")
    assert counts(folder, where) == (2, 0, 0, 0, 1)
    (folder / "copy.png").rename(folder / "moved.png")
    (folder / "blue").rename(folder / "azul")
    assert counts(folder, where) == (0, 0, 4, 0, 0)
    shape_picture("green", 51).save(folder / "red" / "new.png")
    (folder / "red" / "000.png").unlink()
    assert counts(folder, where) == (0, 1, 0, 1, 1)
    os.utime(folder / "moved.png", (1, 1))
    assert counts(folder, where) == (0, 0, 0, 0, 0)
    assert sorted(contents(where)) == sorted(str(path) for path in folder.rglob("*.png"))


def test_two_files_that_change_places_and_one_that_is_replaced(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    red, green, blue = (folder / colour / "000.png" for colour in ("red", "green", "blue"))
    before = contents(where)
    red.rename(folder / "x")
    green.rename(red)
    (folder / "x").rename(green)
    blue.rename(folder / "old.png")
    shape_picture("blue", 77).save(blue)
    for path in (red, green, blue):
        os.utime(path, ns=(time.time_ns() + 10**9, time.time_ns() + 10**9))
    Index.update(folder, where)
    after = contents(where)
    np.testing.assert_array_equal(after[str(red)], before[str(green)])
    np.testing.assert_array_equal(after[str(green)], before[str(red)])
    np.testing.assert_array_equal(after[str(folder / "old.png")], before[str(blue)])
    expected = make_model().encode_image([blue], normalize=True).numpy()[0]
    np.testing.assert_allclose(after[str(blue)], expected, atol=5e-3)


def test_a_second_folder_leaves_the_first_alone(indexed: tuple[Path, str], tmp_path: Path) -> None:
    _, where = indexed
    (tmp_path / "more").mkdir()
    shape_picture("red", 90).save(tmp_path / "more" / "a.png")
    assert counts(tmp_path / "more", where) == (1, 0, 0, 0, 1)
    assert len(Index(where)) == 10


def test_bad_files_are_named_and_change_nothing_else(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    (folder / "broken.jpg").write_bytes(b"\xff\xd8broken")
    (folder / "empty.png").write_bytes(b"")
    (folder / "red" / "000.png").write_text("no longer an image")
    odd = os.fsencode(folder) + b"/\xff<b>\n\xe2\x80\xaex.png"
    try:
        shutil.copy(folder / "red" / "001.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    index, changes = Index.update(folder, where)
    assert (changes.added, changes.removed) == (1, 1)
    assert sorted(Path(skipped.path).name for skipped in changes.skipped) == ["000.png", "broken.jpg", "empty.png"]
    _, again = Index.update(folder, where)
    assert (again.added, again.moved, again.removed) == (0, 0, 0)
    total, rows = index.rows(where=r"path like '%xff%'")
    assert total == 1
    assert os.fsencode(index.file(rows[0]["id"])) == odd


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


def test_another_model_is_refused(indexed: tuple[Path, str], tmp_path: Path) -> None:
    folder, where = indexed
    other = str(make_model(seed=1).save(tmp_path / "other"))
    for call in (lambda: Index.update(folder, where, model=other), lambda: Index(where, model=other).embedder):
        with pytest.raises(MiradaError, match="is another model: use the one it was made with"):
            call()
    with pytest.raises(MiradaError, match="has random weights"):
        Index.update(folder, tmp_path / "third", model="vit-pico/8(depth=1)")
    assert not (tmp_path / "third").exists()


def test_a_second_writer_is_refused(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    with writing(where), pytest.raises(MiradaError, match="Another process is writing"):
        Index.update(folder, where)
    assert counts(folder, where) == (0, 0, 0, 0, 0)


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


def test_the_nearest_are_the_nearest(shapes_index: str) -> None:
    index = Index(shapes_index)
    rows = rows_of(index.table, ["id", "path", "vector"])
    matrix = as_matrix(rows)
    text = index.embedder.texts(["a red disc"])[0]
    order = np.argsort(-(matrix @ text))[:5]
    hits = index.search("a red disc", k=5, everything=True)
    assert [hit.path for hit in hits] == rows["path"].take(order).to_pylist()
    np.testing.assert_allclose([hit.score for hit in hits], (matrix @ text)[order], atol=5e-3)


def test_a_picture_finds_itself_and_filters_hold(shapes_index: str) -> None:
    index = Index(shapes_index)
    total, page = index.rows(sort="path", limit=3)
    assert total == 90
    path = page[0]["path"]
    assert index.search(path, k=1)[0].path == path
    assert index.search(Image.open(path), k=1)[0].path == path
    only = index.search(path, k=90, where="path like '%/green/%'", everything=True)
    assert len(only) == 30
    assert all("/green/" in hit.path for hit in only)
    assert index.search(path, where="width > 1000", everything=True) == []
    neighbours = index.neighbours(page[0]["id"], 4)
    assert len(neighbours) == 4
    assert page[0]["id"] not in [hit.id for hit in neighbours]


def test_sums_lean_as_they_say(shapes_index: str) -> None:
    index = Index(shapes_index)
    _, page = index.rows(limit=90)
    by_colour = {colour: [row["path"] for row in page if f"/{colour}/" in row["path"]] for colour in ("red", "blue")}
    liked = index.search(like=by_colour["red"][:5], unlike=by_colour["blue"][:5], k=15, everything=True)
    assert sum("/red/" in hit.path for hit in liked) >= 12
    summed = index.search(f"{by_colour['red'][0]} - {by_colour['blue'][0]}", k=15, everything=True)
    assert sum("/blue/" in hit.path for hit in summed) <= 3
    with pytest.raises(Misuse, match="cancel each other out"):
        index.search('"a cat" - "a cat"')
    with pytest.raises(Misuse, match="only what to leave out"):
        index.search(unlike=by_colour["red"][:1])


def test_pages_rows_and_thumbnails(shapes_index: str) -> None:
    index = Index(shapes_index)
    first, second = (index.rows(sort="size", descending=True, offset=offset, limit=10)[1] for offset in (0, 10))
    sizes = [row["size"] for row in first + second]
    assert sizes == sorted(sizes, reverse=True)
    assert index.row(first[0]["id"]) == first[0]
    assert first[0]["width"] == 24
    with Image.open(io.BytesIO(index.thumbnail(first[0]["id"]))) as image:
        assert (image.format, image.size) == ("WEBP", (24, 24))
    with pytest.raises(MiradaError, match="has no row 7"):
        index.row(7)
    with pytest.raises(Misuse, match="Cannot sort by 'vector'"):
        index.rows(sort="vector")


def test_a_model_without_words(new_shapes: Any, tmp_path: Path) -> None:
    folder = new_shapes(3)
    index, _ = Index.update(folder, tmp_path / "index", model=str(make_model(words=False).save(tmp_path / "m")))
    assert index.search(str(folder / "red" / "000.png"), k=1)
    with pytest.raises(MiradaError, match="sees pictures only"):
        index.search("red")


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_sizes_are_those_of_the_upright_picture(kind: str, tmp_path: Path, model_folder: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "pictures").mkdir()
    shape_picture("red", 0, 64).resize((64, 48)).save(tmp_path / "pictures" / f"a.{kind}", exif=exif)
    index, _ = Index.update(tmp_path / "pictures", tmp_path / "index", model=model_folder)
    (row,) = index.rows()[1]
    assert (row["width"], row["height"]) == (48, 64)


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


def broken_exif(pointer: int) -> bytes:
    """A JPEG whose EXIF says that its camera's part begins at an impossible place."""
    entries = struct.pack("<HHIiI", 0x8769, 4, 1, pointer, 0)
    data = io.BytesIO()
    shape_picture("red", 90).save(data, "JPEG", exif=b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 1) + entries)
    return data.getvalue()


@pytest.mark.parametrize("pointer", [-1, 2**31 - 1, 8])
def test_a_damaged_exif_block_costs_no_picture(indexed: tuple[Path, str], pointer: int) -> None:
    folder, where = indexed
    (folder / "a.jpg").write_bytes(broken_exif(pointer))
    shape_picture("blue", 91).save(folder / "b.png")
    assert counts(folder, where) == (2, 0, 0, 0, 2)


def test_a_place_south_of_nowhere() -> None:
    degrees = (10.0, 30.0, 0.0)
    assert [_degrees({1: side, 2: degrees}, 1, 2, 90) for side in ("N", "S", "south", "")] == [10.5, -10.5, -10.5, 10.5]


def test_what_another_process_took_in_meanwhile_is_not_gone(
    indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, where = indexed
    hold = module.writing

    @contextmanager
    def late(place: str) -> Iterator[None]:
        monkeypatch.setattr(module, "writing", hold)
        shape_picture("red", 90).save(folder / "new.png")
        assert counts(folder, where) == (1, 0, 0, 0, 1)
        with hold(place):
            yield

    monkeypatch.setattr(module, "writing", late)
    assert counts(folder, where) == (0, 0, 0, 0, 0)
    assert len(Index(where)) == 10


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


def test_an_index_is_the_same_one_while_rows_come_and_go(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    index = Index(where)
    (folder / "red" / "000.png").unlink()
    Index.update(folder, where)
    index.table.create_index("path", config=BTree())
    assert index.is_there()
    shutil.rmtree(where)
    assert not index.is_there()


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


def test_what_was_measured_does_not_pile_up(indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts(indexed[1])
    monkeypatch.setattr(table_module, "timedelta", lambda **_: timedelta(milliseconds=1))
    for number in range(40):
        facts.put("large", bytes([number]) * 100_000)
    kept = sum(file.stat().st_size for file in (Path(indexed[1]) / "facts.lance").rglob("*") if file.is_file())
    assert kept < 25 * 100_000
    assert facts.get("large") == bytes([39]) * 100_000


def test_one_process_at_a_time_builds(indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(vectors_module, "build_index", built.append)
    with FileLock(Path(indexed[1]) / ".vectors.lock"):
        build_index_once(indexed[1])
    assert built == []
    build_index_once(indexed[1])
    assert built == [indexed[1]]


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


def test_neighbours_of_what_came_and_went_meanwhile(indexed: tuple[Path, str]) -> None:
    folder, where = indexed
    index = Index(where)
    gone = index.rows()[1][0]
    shape_picture("red", 61).save(folder / "new.png")
    (folder / Path(gone["path"]).relative_to(folder)).unlink()
    Index.update(folder, where)
    (new,) = (row["id"] for row in Index(where).rows()[1] if row["path"].endswith("new.png"))
    assert len(index.neighbours(new, 4)) == 4
    with pytest.raises(NoSuchPicture):
        Index(where).neighbours(gone["id"])


def test_there_must_be_room_before_a_model_is_fetched(
    indexed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = indexed
    monkeypatch.setattr("mirada.search.index.open_model", lambda *_, **__: pytest.fail("it was fetched"))
    with pytest.raises(MiradaError, match="holds other things already"):
        Index.update(folder, folder)


def test_looking_does_not_touch_the_random_numbers(shapes_index: str) -> None:
    index = Index(shapes_index)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    index.search("red", everything=True)
    assert torch.equal(torch.rand(1), expected)
