"""What the bytes of a file say, whatever is broken in them."""

import io
import struct
from pathlib import Path

import pytest
from PIL import Image
from shapes import shape_picture
from updates import counts

from mirada.search.index import Index
from mirada.search.picture import _degrees


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_sizes_are_those_of_the_upright_picture(kind: str, tmp_path: Path, model_folder: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "pictures").mkdir()
    shape_picture("red", 0, 64).resize((64, 48)).save(tmp_path / "pictures" / f"a.{kind}", exif=exif)
    index, _ = Index.update(tmp_path / "pictures", tmp_path / "index", model=model_folder)
    (row,) = index.rows()[1]
    assert (row["width"], row["height"]) == (48, 64)


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
