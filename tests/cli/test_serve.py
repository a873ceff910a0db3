"""`mirada serve`, up to and including a server that runs."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import lancedb
import pyarrow as pa
import pytest
from commands import MIRADA, refused, run
from shapes import make_shapes
from towers import make_model

from mirada.search.index import Index
from mirada.search.table import TABLE


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("to serve")
    Index.update(make_shapes(folder / "shapes", 2), folder / "index", model=str(make_model().save(folder / "model")))
    return str(folder / "index")


def test_help_says_what_it_does() -> None:
    result = run("serve", "--help")
    assert result.exit_code == 0
    assert "browser" in result.stdout


def test_it_runs_says_where_and_ends(index: str) -> None:
    command = [*MIRADA, "serve", "--index", index, "--port", "0", "--device", "cpu", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = json.loads(process.stdout.readline())
            assert said["index"] == index
            with urlopen(said["url"] + "api/index") as answer:
                assert json.load(answer)["pictures"] == 6
                assert answer.headers["server"] is None
        finally:
            process.terminate()
        assert process.stderr.read() == ""
    assert process.returncode in (0, -15)


def test_a_port_in_use(index: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = refused(1, "serve", "--index", index, "--port", port)
    assert f"port {port}" in sentence
    assert "choose another --port" in sentence


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "pictures.example"])
def test_others_are_let_in_by_a_token_only(index: str, host: str) -> None:
    assert "--token" in refused(2, "serve", "--index", index, "--host", host)
    assert "token is empty" in refused(2, "serve", "--index", index, "--host", host, "--token", " ")


def test_a_host_that_is_not_this_machine(index: str) -> None:
    assert "Cannot listen on" in refused(1, "serve", "--index", index, "--host", "192.0.2.7", "--token", "secret")


def test_no_index(tmp_path: Path) -> None:
    assert "There is no index" in refused(1, "serve", "--index", tmp_path / "none")


@pytest.mark.parametrize(("version", "word"), [(0, "older"), (99, "newer")])
def test_an_index_of_another_version(tmp_path: Path, version: int, word: str) -> None:
    schema = pa.schema([pa.field("id", pa.int64())], {"mirada": json.dumps({"format": version})})
    lancedb.connect(str(tmp_path)).create_table(TABLE, schema=schema)
    assert f"{word} Mirada (format {version}" in refused(1, "serve", "--index", tmp_path)


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_a_missing_extra_is_named(index: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    sentence = refused(1, "serve", "--index", index, "--port", 0)
    assert package in sentence
    assert "pip install 'mirada[serve]'" in sentence
