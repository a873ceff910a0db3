"""Answers in a fraction of a second: a process that keeps the model and the index in memory is started by the first
search and ends when nobody has asked for a while.

Client and process talk over a Unix socket in a folder that only its owner may enter: one line of JSON each way. Nothing
is unpickled, nothing listens on the network. The client part imports neither PyTorch nor LanceDB.
"""

import json
import os
import socket
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mirada import __version__
from mirada.errors import MiradaError, Misuse
from mirada.search.apart import start_apart

__all__ = ["ask", "serve"]

IDLE = 15 * 60.0  # seconds without a question, after which the process ends
PATIENCE = 5.0  # seconds for the process to open its socket; loading comes after that
LONGEST = 1 << 20  # bytes of a question
MOST = 4  # indexes that are kept open


def ask(index: str, query: str, *, stay: bool = True, **options: Any) -> list[dict[str, Any]]:
    """What `Index.search` finds, as plain values. With `stay` from the resident process, where there can be one."""
    question = {"index": os.fspath(index), "query": query, "folder": os.getcwd(), **options}
    if "://" not in question["index"]:
        question["index"] = os.path.abspath(os.path.expanduser(question["index"]))
    model = question.get("model")
    if model is not None and os.path.isdir(os.path.expanduser(model)):  # the process has a working folder of its own
        question["model"] = os.path.abspath(os.path.expanduser(model))
    if stay and hasattr(socket, "AF_UNIX") and os.environ.get("MIRADA_RESIDENT") != "0":
        answer = _from_resident(question)
        if answer is not None:
            if "error" in answer:
                raise (Misuse if answer["misuse"] else MiradaError)(answer["error"])
            return list(answer["hits"])
    return _answer(question, {})


def _answer(question: dict[str, Any], open_indexes: dict[str, Any]) -> list[dict[str, Any]]:
    """Do it here, with an index that is open already if there is one."""
    from mirada.search.embedder import open_model
    from mirada.search.index import Index

    options = dict(question)
    where, query, model = options.pop("index"), options.pop("query"), options.pop("model", None)
    index = open_indexes.pop(where, None)
    if index is None or not index.is_there():
        index = Index(where)
    open_indexes[where] = index  # the one used last stands last
    while len(open_indexes) > MOST:
        del open_indexes[next(iter(open_indexes))]
    if model is not None:
        index.require(open_model(model))
    return [{"path": hit.path, "score": hit.score, "match": hit.match, "id": hit.id}
            for hit in index.search(query, **options)]  # fmt: skip


# --- the one who asks -------------------------------------------------------------------------------------------------


def _from_resident(question: dict[str, Any]) -> dict[str, Any] | None:
    """The process's answer; None where there cannot be one, or it failed in a way of its own."""
    line = json.dumps(question).encode() + b"\n"
    try:
        place = _socket_path()
        for _ in range(2):  # a process that is about to end may still take a question
            answer = _try(place, line) or _try(place, line, start=True)
            if answer is not None:
                return None if "crash" in answer else answer
    except (OSError, ValueError):
        return None
    return None


def _try(place: Path, line: bytes, start: bool = False) -> dict[str, Any] | None:
    """Ask the process, which may be started first. None where there is none."""
    if start:
        start_apart("mirada.search.resident", str(place), str(place.with_suffix(".log")))
    until = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(place))
                connection.sendall(line)
                with connection.makefile("rb") as file:
                    received = file.readline()
                return dict(json.loads(received)) if received else None
            except (FileNotFoundError, ConnectionError):
                if not start or time.monotonic() > until:
                    return None
        time.sleep(0.02)


def _socket_path() -> Path:
    """Where the process of this user and this installation listens, in a folder that only they may enter."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(os.environ.get("MIRADA_RUN") or (os.path.join(runtime, "mirada") if runtime else
                  os.path.join(tempfile.gettempdir(), f"mirada-{os.getuid()}")))  # fmt: skip
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise OSError(f"{folder} may be entered by others")
    code = Path(__file__).parent
    age = max(file.stat().st_mtime_ns for file in code.glob("*.py"))
    names = ("MIRADA_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "PYTHONPATH")
    facts_of_it = [__version__, sys.prefix, str(code), age, {name: os.environ.get(name) for name in names}]
    name = blake2b(json.dumps(facts_of_it).encode(), digest_size=8).hexdigest()
    return folder / f"{name}.sock"


# --- the process ------------------------------------------------------------------------------------------------------


def serve(place: Path, idle: float = IDLE) -> None:
    """Answer questions at this socket, one after another, until nobody has asked for `idle` seconds."""
    from filelock import FileLock, Timeout

    lock = FileLock(place.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:  # another one was started at the same moment
        return
    with lock, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        place.unlink(missing_ok=True)
        listening.bind(str(place))
        place.with_suffix(".pid").write_text(str(os.getpid()))
        try:
            listening.listen(16)
            listening.settimeout(idle)
            open_indexes: dict[str, Any] = {}
            while True:
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    return
                with connection:
                    _serve_one(connection, open_indexes)
        finally:
            place.unlink(missing_ok=True)
            place.with_suffix(".pid").unlink(missing_ok=True)


def _serve_one(connection: socket.socket, open_indexes: dict[str, Any]) -> None:
    connection.settimeout(PATIENCE)
    try:
        with connection.makefile("rb") as file:
            received = file.readline(LONGEST)
        if not received.endswith(b"\n"):
            return
        connection.sendall(json.dumps(_reply(json.loads(received), open_indexes)).encode() + b"\n")
    except (OSError, ValueError):  # who asked is gone, or does not speak the language
        return


def _reply(question: dict[str, Any], open_indexes: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"hits": _answer(question, open_indexes)}
    except MiradaError as error:
        return {"error": str(error), "misuse": isinstance(error, Misuse)}
    except Exception as error:  # the one who asks does it without this process, and sees what is wrong
        open_indexes.clear()
        return {"crash": repr(error)}


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
