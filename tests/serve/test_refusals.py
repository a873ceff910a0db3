"""Who and what is turned away, and how the server outlives it."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest
from served import NAMES, Served, failure, found, png_of
from shapes import shape_picture
from starlette.testclient import TestClient

from mirada.serve.app import create_app
from mirada.serve.guard import HEADERS, LARGEST, is_loopback
from mirada.serve.places import PAGES
from mirada.serve.shelf import SENT, Shelf

BASE, TOKEN = "http://127.0.0.1:8000", "a secret word"


@pytest.fixture(scope="module")
def guarded(served_index: Served) -> Any:
    return create_app(Shelf(served_index.index), TOKEN)


@pytest.fixture
def stranger(guarded: Any) -> Iterator[TestClient]:
    with TestClient(guarded, base_url="http://pictures.example", follow_redirects=False) as client:
        yield client


# --- what is sent -----------------------------------------------------------------------------------------------------


def refused_upload(client: TestClient, data: bytes, status: int = 400) -> str:
    answer = client.post("/api/uploads", content=data)
    assert answer.status_code == status, answer.text
    sentence: str = answer.json()["error"]
    return sentence


def test_a_bomb_is_not_unpacked(client: TestClient) -> None:
    bomb = png_of(40_000, 40_000)
    assert len(bomb) < 1 << 20
    assert "pixels" in refused_upload(client, bomb)
    assert "pixels" in refused_upload(client, png_of(10_000, 6_000))
    assert client.post("/api/uploads", content=png_of(900, 700)).json()["width"] == 900


@pytest.mark.parametrize(
    "data", [b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n", b"%!PS\n(/etc/passwd) run", b"\xff\xd8\xff"]
)
def test_what_is_no_picture(client: TestClient, data: bytes) -> None:
    assert refused_upload(client, data)


def asked(app: Any, headers: dict[str, str], parts: Iterator[bytes]) -> tuple[int, int]:
    """The status of an upload that comes in parts, and how many of these were taken."""
    taken, statuses = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": next(parts), "more_body": True}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/api/uploads", "raw_path": b"/api/uploads", "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return statuses[0], taken


def test_two_gigabytes_are_not_read(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 20)

    assert asked(client.app, {"content-length": str(2 << 30)}, endless()) == (413, 0)
    assert asked(client.app, {"transfer-encoding": "chunked"}, endless()) == (413, (LARGEST >> 20) + 1)
    assert asked(client.app, {"content-length": "-1"}, endless()) == (413, 0)


def test_only_the_last_pictures_are_kept(own_client: TestClient) -> None:
    def send(number: int) -> str:
        buffer = io.BytesIO()
        shape_picture("blue", number).save(buffer, "PNG")
        key: str = own_client.post("/api/uploads", content=buffer.getvalue()).json()["upload"]
        return key

    first, *_, last = [send(number) for number in range(SENT + 1)]
    assert "drop it again" in failure(own_client, 404, "/api/search", plus=first)
    assert found(own_client, "/api/search", plus=last, all=True)["pictures"]


# --- paths, names and conditions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/../app.py", "/%2e%2e/app.py", "/texts/..%2f..%2fapp.py", "/..%5capp.py", "//etc/passwd", "/texts/%00en.json"],
)  # fmt: skip
def test_nothing_outside_the_pages_is_given(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "create_app" not in answer.text


def test_words_never_name_a_file(client: TestClient, served_index: Served) -> None:
    path = str(served_index.pictures / "red" / "000.png")
    answer = found(client, "/api/search", q=path, all=True)
    assert answer["terms"] == [{"words": path, "weight": 1}]
    failure(client, 404, "/api/search", plus=path)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_stay_names(client: TestClient, name: str) -> None:
    rows = found(client, "/api/pictures", limit=1000)["pictures"]
    (row,) = [row for row in rows if row["name"] == name]
    file = client.get(f"/api/pictures/{row['id']}/file")
    disposition = file.headers["content-disposition"]
    assert disposition.isascii()
    assert not set(disposition.partition("''")[2]) & set('<>"\n\\/ ')
    assert file.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "where",
    [
        "1 = 1", "id = 1", "size > 0; DROP TABLE pictures", "path like '%' --", "size in (select 1)",
        "length(path) > 1", "path = 'a' or sleep(9)", "size > 1e999", "path like '", "(" * 500 + "size > 0" + ")" * 500,
        "vector is null", "", "date = '2024' union select 1", "size = 0x10", "x" * 11_000,
    ],
)  # fmt: skip
def test_conditions_are_read_and_not_run(client: TestClient, where: str) -> None:
    total = found(client, "/api/index")["pictures"]
    for path in ("/api/pictures", "/api/search"):
        answer = client.get(path, params={"q": "red", "where": where})
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["error"]
    assert found(client, "/api/index")["pictures"] == total


# --- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example"}, 400),
        ({"host": "127.0.0.1.evil.example"}, 400),
        ({"host": "localhost@evil.example"}, 400),
        ({"host": ""}, 400),
        ({"origin": BASE}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_other_sites_are_turned_away(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/pictures", headers=headers).status_code == status
    if status != 200 and "host" not in headers:
        assert client.post("/api/uploads", headers=headers, content=b"").status_code == status


def test_a_link_from_elsewhere_may_be_followed(client: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.post("/", headers=headers).status_code == 403


def test_the_browser_is_bound(client: TestClient) -> None:
    for path in ("/", "/api/pictures", "/api/pictures/999999", "/nothing"):
        headers = client.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert "access-control-allow-origin" not in headers


def test_a_socket_is_closed(client: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/pictures"):
        pass


def test_only_loopback_is_loopback() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "LOCALHOST"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "localhost.evil.example", "", "a b"))


def test_without_the_token_nothing_is_told(stranger: TestClient) -> None:
    for path in ("/api/index", "/metrics", "/main.js", "/api/openapi.json", "/nothing"):
        answer = stranger.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert found(stranger, "/healthz") == {"status": "ok"}
    page = stranger.get("/", headers={"accept": "text/html"})
    assert (page.status_code, page.text) == (401, (PAGES / "token.html").read_text(encoding="utf-8"))


def test_a_script_sends_the_token(stranger: TestClient) -> None:
    def status(value: str) -> int:
        return stranger.get("/api/index", headers={"authorization": value}).status_code

    assert status(f"Bearer {TOKEN}") == 200
    for wrong in ("Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
        assert status(wrong) == 401


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("token", ["una contraseña", "voilà"])
def test_a_token_may_be_any_word(served_index: Served, token: str, encoding: str) -> None:
    with TestClient(create_app(Shelf(served_index.index), token=token), base_url=BASE) as client:
        for sent, status in ((token, 200), (token[:-1], 401)):
            headers = {"authorization": f"Bearer {sent}".encode(encoding)}
            assert client.get("/api/index", headers=headers).status_code == status  # type: ignore[arg-type]


def test_a_browser_is_asked_for_the_token_once(stranger: TestClient) -> None:
    wrong = stranger.post("/login", data={"token": "wrong"}, headers={"accept": "text/html"})
    assert wrong.status_code == 401
    assert not stranger.cookies
    answer = stranger.post("/login", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert stranger.get("/api/index").status_code == 200
    stranger.cookies.clear()
    stranger.cookies.set("mirada", "0" * 64, domain="pictures.example")
    assert stranger.get("/api/index").status_code == 401
    assert stranger.post("/login", content=b"token=" + b"x" * 10_000).status_code == 413
