"""`mirada index` and `mirada search`, with and without the process that stays."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from commands import MIRADA, document, refused, run
from shapes import make_shapes
from towers import make_model

from mirada.search import resident
from mirada.search.apart import start_apart
from mirada.search.index import Index
from mirada.search.table import rows_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model().save(tmp_path_factory.mktemp("models") / "towers"))


@pytest.fixture(scope="module")
def index(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("searched")
    Index.update(make_shapes(folder / "shapes", 5), folder / "index", model=model)
    return str(folder / "index")


@pytest.fixture(autouse=True)
def run_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where processes that stay have their sockets, whose paths may be 103 bytes long; they end with the test."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as short:
        folder = Path(short) / "run"
        monkeypatch.setenv("MIRADA_RUN", str(folder))
        yield folder
        for place in folder.glob("*.pid") if folder.exists() else ():
            os.kill(int(place.read_text()), signal.SIGTERM)


def test_from_a_folder_to_a_hit(new_shapes: Callable[[int], Path], model: str, tmp_path: Path) -> None:
    folder, where = new_shapes(3), str(tmp_path / "index")
    made = document("index", folder, "--index", where, "--model", model)
    assert made == {"index": where, "added": 9, "updated": 0, "moved": 0, "removed": 0, "unchanged": 0, "embedded": 9,
                    "rows": 9, "skipped": []}  # fmt: skip
    (folder / "red" / "000.png").rename(folder / "first.png")
    (folder / "red" / "001.png").unlink()
    (folder / "blue" / "000.png").write_bytes(b"broken")
    made = document("index", folder, "--index", where)
    assert [made[key] for key in ("added", "updated", "moved", "removed", "rows")] == [0, 0, 1, 2, 7]
    assert [skipped["path"] for skipped in made["skipped"]] == [str(folder / "blue" / "000.png")]
    found = document("search", folder / "first.png", "--index", where, "-k", 1, "--no-resident")
    assert found[0]["path"] == str(folder / "first.png")
    assert found[0]["score"] == pytest.approx(1, abs=1e-3)
    assert run("index", folder, "--index", where).stdout.startswith("nothing changed; 7 pictures in ")


def test_on_a_terminal_the_document_goes_where_it_is_asked_for(
    new_shapes: Callable[[int], Path], model: str, tmp_path: Path
) -> None:
    ours, its = os.openpty()
    command = [*MIRADA, "index", str(new_shapes(3)), "--index", str(tmp_path / "index"), "--model", model, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its) as process:
        os.close(its)
        shown = b""
        with suppress(OSError):  # when the other end is closed
            while read := os.read(ours, 1 << 16):
                shown += read
        assert process.stdout is not None
        printed = process.stdout.read()
    os.close(ours)
    assert json.loads(printed)["added"] == 9
    assert b"indexing" in shown
    assert b'"added"' not in shown


def test_the_process_that_stays_runs_nothing_of_the_folder_it_is_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "filelock.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path / "photos")
    start_apart("mirada.search.vectors", str(tmp_path / "no index"), str(tmp_path / "log"))
    deadline = time.monotonic() + 60
    while "There is no index" not in (log := (tmp_path / "log").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "There is no index" in log
    assert not (tmp_path / "ran").exists()


def test_nothing_matches_and_all_the_same(index: str) -> None:
    assert document("search", "qzxv wkjhq", "--index", index, "--no-resident") == []
    assert "nothing here matches" in run("search", "qzxv wkjhq", "--index", index, "--no-resident").stdout
    assert len(document("search", "qzxv wkjhq", "--index", index, "--all", "-k", 4, "--no-resident")) == 4


def test_the_process_that_stays_gives_the_same(
    index: str, model: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["search", "red", "--index", index, "--all", "--where", "path like '%red%'"]
    alone = document(*asked, "--no-resident")
    assert document(*asked) == alone
    (place,) = run_folder.glob("*.sock")
    assert run_folder.stat().st_mode & 0o077 == 0
    assert document(*asked) == alone
    monkeypatch.chdir(Path(model).parent)  # where the process is not
    assert document(*asked, "--model", Path(model).name) == alone
    assert "cannot be read" not in refused(2, "search", "red", "--index", index, "--where", "id = 1")
    assert "There is no index in" in refused(1, "search", "red", "--index", index + "x")
    (process,) = run_folder.glob("*.pid")
    os.kill(int(process.read_text()), signal.SIGKILL)
    assert place.exists()
    assert document(*asked) == alone  # another one is started


def test_the_process_ends_when_nobody_asks(run_folder: Path) -> None:
    resident.serve(run_folder.parent / "a.sock", idle=0.05)
    assert not (run_folder.parent / "a.sock").exists()


def test_what_is_misused(index: str, tmp_path: Path, model: str) -> None:
    other = str(make_model(seed=2).save(tmp_path / "other"))
    assert "is another model" in refused(1, "search", "red", "--index", index, "--model", other, "--no-resident")
    assert "Say which index" in refused(2, "search", "red")
    assert "The query is empty" in refused(2, "search", "", "--index", index, "--no-resident")
    assert "no column 'vector'" in refused(2, "search", "a", "--index", index, "--where", "vector = 1", "--no-resident")
    assert "There is no" in refused(1, "index", tmp_path / "nothing", "--index", tmp_path / "i", "--model", model)
    assert not (tmp_path / "i").exists()


def test_offline_the_default_model_is_not_there(
    new_shapes: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    said = refused(1, "index", new_shapes(2), "--index", tmp_path / "index")
    assert "use --model mirada:emoji, which comes with the package, or a model's folder" in said
    assert not (tmp_path / "index").exists()


def test_a_kill_at_any_moment_loses_and_doubles_nothing(
    new_shapes: Callable[[int], Path], model: str, tmp_path: Path
) -> None:
    folder, where = new_shapes(40), str(tmp_path / "index")
    shutil.copy(folder / "red" / "000.png", folder / "copy.png")
    command = [*MIRADA, "index", str(folder), "--index", where, "--model", model, "--batch", "4"]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - began
    shutil.rmtree(where)
    for share in (0.55, 0.7, 0.8, 0.9):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(share * whole)
        process.kill()
        process.wait()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 121
    paths = rows_of(Index(where).table, ["path"])["path"].to_pylist()
    assert sorted(paths) == sorted(str(path) for path in folder.rglob("*.png"))
