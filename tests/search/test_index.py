"""What an index holds, and what its methods give."""

import io
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import shape_picture
from towers import make_model
from updates import contents, counts

import mirada.search.index as module
from mirada.errors import MiradaError, Misuse
from mirada.search.build import writing
from mirada.search.index import Index, NoSuchPicture
from mirada.search.table import rows_of
from mirada.search.vectors import as_matrix


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


def test_looking_does_not_touch_the_random_numbers(shapes_index: str) -> None:
    index = Index(shapes_index)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    index.search("red", everything=True)
    assert torch.equal(torch.rand(1), expected)
