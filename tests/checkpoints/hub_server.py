"""A hub on this machine: a folder of repositories behind the paths and headers of huggingface.co.

Small files are sent as they are, with git's hash as their etag. Large ones are redirected to another server, as from
the hub to its CDN, with the sha256 in `X-Linked-Etag`. Both can be told to misbehave.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".bin", ".pth", ".pt")


class Request(NamedTuple):
    method: str
    path: str
    headers: Message
    cdn: bool  # whether the other server was asked


@dataclass
class Hub:
    """The repositories, `root/ORG/NAME/FILE`, and how they are served.

    Attributes:
        requests: all that was asked for, in order.
        gated: repositories whose licence has to be accepted; `tokens` have done so.
        cut: file -> how many more times its download breaks off; after `cut_after` of what was asked for.
        fail: part of a path -> status that is answered instead, `fail_times` times.
        corrupt: files of which the first byte comes changed.
        short: files that are announced larger than they are.
        lists: whether the repositories' lists of files are served; a plain mirror does not.
        ranges: whether ranges are honoured.
    """

    root: Path
    url: str = ""
    cdn: str = ""
    requests: list[Request] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    cut_after: float = 0.5
    fail: dict[str, int] = field(default_factory=dict)
    fail_times: int = 10**9
    corrupt: set[str] = field(default_factory=set)
    short: set[str] = field(default_factory=set)
    lists: bool = True
    ranges: bool = True

    def add(self, repo: str, files: dict[str, bytes | str]) -> Path:
        """Make a repository, or change it; returns its folder, which may be written to directly too."""
        folder = self.root / repo
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    def downloads(self, name: str) -> list[Request]:
        """The requests for a file's content."""
        return [one for one in self.requests if one.method == "GET" and one.path.split("?")[0].endswith("/" + name)]

    def commit(self, repo: str) -> str:
        """Changes with the content."""
        names = "".join(f"{name}\0{_blob_id(self.root / repo / name)}\n" for name in self.files(repo))
        return hashlib.sha1(names.encode()).hexdigest()

    def files(self, repo: str) -> list[str]:
        folder = self.root / repo
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A hub over `root`, at `hub.url`, while the context lasts."""
    hub = Hub(root)
    servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
    for server, cdn in zip(servers, (False, True), strict=True):
        server.hub, server.cdn = hub, cdn
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub
    cdn: bool

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; else the second waits 40 ms
    server: _Server

    def log_message(self, format: str, *args: Any) -> None: ...  # it is called so in the library

    def do_HEAD(self) -> None:  # the name is the protocol's
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(Request(self.command, self.path, self.headers, self.server.cdn))
        for part, status in hub.fail.items():
            if part in self.path and hub.fail_times > 0:
                hub.fail_times -= 1
                return self._refuse(status, None, "Internal Error")
        if self.server.cdn:
            return self._content(hub.root / path.removeprefix("/"))
        if path.startswith("/api/models/"):
            return self._list(path.removeprefix("/api/models/"))
        repo, resolve, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if not resolve:
            return self._refuse(404, None, "Not Found")
        return self._resolve(repo, revision, name)

    def _list(self, path: str) -> None:
        hub = self.server.hub
        repo, _, revision = path.partition("/revision/")
        if not hub.lists or "/tree/" in path:
            return self._refuse(404, None, "Not Found")
        if not self._there(repo, revision or "main"):
            return None
        with_blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        card = hub.root / repo / "README.md"
        text = card.read_text() if card.is_file() else ""
        data = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
        body = json.dumps({
            "_id": "0", "id": repo, "modelId": repo, "sha": hub.commit(repo), "private": False,
            "gated": "manual" if repo in hub.gated else False, "tags": [f"license:{data['license']}"] if data else [],
            "cardData": data, "siblings": [self._sibling(repo, name, with_blobs) for name in hub.files(repo)],
        }).encode()  # fmt: skip
        return self._send(200, {"Content-Type": "application/json"}, body)

    def _sibling(self, repo: str, name: str, with_blobs: bool) -> dict[str, Any]:
        path = self.server.hub.root / repo / name
        if not with_blobs:
            return {"rfilename": name}
        entry = {"rfilename": name, "size": path.stat().st_size, "blobId": _blob_id(path)}
        if name.endswith(LARGE):
            entry["lfs"] = {"sha256": _sha256(path), "size": path.stat().st_size, "pointerSize": 130}
        return entry

    def _there(self, repo: str, revision: str) -> bool:
        """Whether the repository and revision exist; if not, the refusal has been sent."""
        hub = self.server.hub
        if not (hub.root / repo).is_dir():
            if self._token():
                self._refuse(404, "RepoNotFound", "Repository not found")
            else:  # so does the hub: it does not tell strangers what is private
                self._refuse(401, None, "Invalid username or password.")
            return False
        if revision not in ("main", hub.commit(repo)):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return False
        return True

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        hub = self.server.hub
        if not self._there(repo, revision):
            return None
        if repo in hub.gated and self._token() not in hub.tokens:
            status = 403 if self._token() else 401
            return self._refuse(status, "GatedRepo", f"Access to model {repo} is restricted.")
        path = hub.root / repo / name
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": hub.commit(repo)})
        headers = {"X-Repo-Commit": hub.commit(repo), "Accept-Ranges": "bytes"}
        if not name.endswith(LARGE):
            return self._content(path, headers | {"ETag": f'"{_blob_id(path)}"'})
        size = path.stat().st_size + (1000 if name in hub.short else 0)
        headers |= {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{_sha256(path)}"'}
        return self._send(302, headers | {"Location": f"{hub.cdn}/{repo}/{name}"}, b"")

    def _content(self, path: Path, headers: dict[str, str] | None = None) -> None:
        """The file, or the range asked for; cut or changed if that is wanted."""
        hub, headers = self.server.hub, dict(headers or {})
        if not path.is_file():
            return self._refuse(404, None, "Not Found")
        body, status = path.read_bytes(), 200
        if path.name in hub.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        wanted = self.headers.get("Range")
        if wanted and hub.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or len(body)) + 1, len(body))
            if begin >= len(body):
                return self._send(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(body)}"
            body, status = body[begin:end], 206
        if self.command == "GET" and hub.cut.get(path.name, 0) > 0:
            hub.cut[path.name] -= 1
            self._send(status, headers | {"Content-Length": str(len(body))}, body[: int(len(body) * hub.cut_after)])
            self.close_connection = True
            return None
        return self._send(status, headers, body)

    def _token(self) -> str | None:
        authorization: str = self.headers.get("Authorization", "")
        return authorization.removeprefix("Bearer ") or None

    def _refuse(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        headers = (headers or {}) | {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, headers, json.dumps({"error": message}).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _blob_id(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
