"""Commands take every form of data, and names of any kind."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import MIRADA, SHORT, TINY, document, png, run
from shapes import COLOURS, shape_picture

from mirada.train.folder import RunFolder


def as_parquet(folder: Path) -> Path:
    folder.mkdir()
    for split, numbers in (("train", range(20)), ("test", range(20, 26))):
        rows = [{"image": png(colour, number), "label": label, "label_name": colour}
                for label, colour in enumerate(COLOURS) for number in numbers]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    return folder


def as_csv(folder: Path) -> Path:
    folder.mkdir()
    lines = ["path,label_name"]
    for colour in COLOURS:
        for number in range(20):
            (folder / f"{colour}{number}.png").write_bytes(png(colour, number))
            lines.append(f"{colour}{number}.png,{colour}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def as_idx(folder: Path) -> Path:
    folder.mkdir()
    for prefix, numbers in (("train", range(20)), ("t10k", range(20, 26))):
        pixels = [np.asarray(shape_picture(colour, number).convert("L")) for colour in COLOURS for number in numbers]
        labels = [label for label in range(3) for _ in numbers]
        shape = np.array([len(pixels), 24, 24], ">u4").tobytes()
        images = bytes([0, 0, 8, 3]) + shape + np.stack(pixels).tobytes()
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + shape[:4] + bytes(labels))
    return folder


def as_shards(folder: Path) -> Path:
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"shapes-{shard:02}.tar", "w") as tar:
            for label, colour in enumerate(COLOURS):
                for number in range(10 * shard, 10 * shard + 10):
                    for suffix, data in (("png", png(colour, number)), ("cls", str(label).encode())):
                        member = tarfile.TarInfo(f"{colour}{number}.{suffix}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return folder / "shapes-{00..01}.tar"


@pytest.mark.parametrize(("make", "split", "n", "classes"), [
    (as_parquet, "test", 18, ["blue", "green", "red"]),
    (as_csv, "val", 12, ["blue", "green", "red"]),
    (as_idx, "test", 18, ["0", "1", "2"]),
    (as_shards, "val", 12, ["0", "1", "2"]),
])  # fmt: skip
def test_every_form_of_data(
    tmp_path: Path, make: Callable[[Path], Path], split: str, n: int, classes: list[str]
) -> None:
    data, out = make(tmp_path / "data"), tmp_path / "run"
    train = document("train", data, *TINY, "--epochs", 2, "--out", out)
    evaluate = document("evaluate", out, data)
    assert (evaluate["split"], evaluate["n"]) == (split, n)
    assert evaluate["metrics"]["accuracy"] == train["metrics"][f"{split}/accuracy"]
    assert document("models", out)[0]["classes"] == classes


def test_a_run_is_named_after_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    names = ["x/photos/", "fotos 2024", "x/shapes-{000..127}.tar", "train.parquet", "/"]
    found = [str(RunFolder.unused(name).path.relative_to("runs")) for name in names]
    assert found == ["photos-2", "fotos 2024", "shapes", "train", "data"]


def test_a_class_with_one_image(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    folder = new_shapes(8)
    (folder / "rare").mkdir()
    shape_picture("red", 99).save(folder / "rare" / "only.png")
    result = run("train", folder, *SHORT, "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert "Classes with one image are trained on but not measured: 'rare'." in result.stderr
    assert document("models", tmp_path / "run")[0]["classes"] == ["blue", "green", "rare", "red"]


def test_names_with_spaces_accents_and_newlines(new_shapes: Callable[[int], Path], tmp_path: Path) -> None:
    folder = tmp_path / "mis fotos\nñandú 目"
    new_shapes(8).rename(folder)
    (folder / "red").rename(folder / "ro\njo [bold]")
    out = tmp_path / "el run\n'ñ'"
    train = run("train", folder, *SHORT, "--out", out)
    assert train.exit_code == 0, train.stderr
    assert document("models", out)[0]["classes"] == ["blue", "green", "ro\njo [bold]"]
    assert document("evaluate", out, folder)["n"] == 6
    resumed = run("train", folder, "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    image = next((folder / "ro\njo [bold]").iterdir())
    assert document("classify", out, image)[0]["path"] == str(image)
    assert run("classify", out, image).stdout.count("\n") == 1


def test_a_file_name_that_is_not_utf8(new_shapes: Callable[[int], Path], trained_run: Path, tmp_path: Path) -> None:
    folder = new_shapes(8)
    odd = os.fsencode(folder / "red") + b"/caf\xe9.png"
    try:
        os.rename(folder / "red" / "000.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (folder / "red" / os.fsdecode(b"brok\xe9n.png")).write_bytes(b"no image")
    result = subprocess.run(
        [*MIRADA, "classify", trained_run, folder / "red", "--json"], capture_output=True, check=True
    )  # fmt: skip
    paths = [answer["path"] for answer in json.loads(result.stdout)]
    assert os.fsdecode(odd) in paths
    train = run("train", folder, *SHORT, "--out", tmp_path / "run", "--json")
    assert train.exit_code == 0, train.stderr
    assert json.loads(train.stdout)["skipped"][0]["path"].endswith("n.png")
