"""What an index holds, and what its methods give."""

import io
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import shape_picture
from towers import make_model

from mirada.errors import MiradaError, Misuse
from mirada.search.build import writing
from mirada.search.index import Index, NoSuchPicture
from mirada.search.table import FORMAT, rows_of
from mirada.search.vectors import as_matrix


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
    shutil.copy(folder / "red" / "001.png", odd)
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
    from commands import png

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
