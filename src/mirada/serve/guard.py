"""Who may ask, and how much they may send: Host, Origin, token, size, and the headers that bind the browser."""

import hmac
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirada.serve.places import PAGES

__all__ = ["HEADERS", "LARGEST", "Guard", "TooLarge", "body_of", "is_loopback"]

LARGEST = 64 << 20  # bytes of a picture that is sent
LONGEST_FORM = 1 << 12  # bytes of a form with a token
COOKIE = "mirada"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
OPEN = {"/healthz", "/style.css", "/icon.svg"}  # what is given without a token


class TooLarge(Exception):  # noqa: N818  # it is what was sent that is too large
    """More bytes than are taken."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def body_of(request: Request, most: int = LARGEST) -> bytes:
    """What was sent. Raises `TooLarge` at the first byte too many, however long the body claims to be."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


class Guard:
    """Every request passes here first.

    Without a token only names of this machine are taken as Host, so that a page of another site cannot reach the server
    under a name of its own (DNS rebinding). With a token any name will do, since the browser sends it to no other. In
    both cases a page of another site can neither read nor send: its browser says where the request comes from.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        answer = await self._answer(request)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in given)]
            await send(message)

        await (self.app if answer is None else answer)(scope, receive, sending)

    async def _answer(self, request: Request) -> Response | None:
        """What is said instead of what was asked for; None lets the request pass."""
        hosts = request.headers.getlist("host")
        name = _name(hosts[0]) if len(hosts) == 1 else ""
        if not name or (self.token is None and not is_loopback(name)):
            return _refusal(400, "This server answers to localhost only: open it by the address that it printed.")
        if _comes_from_elsewhere(request, hosts[0]):
            return _refusal(403, "Another site asked for this: open the server's own page instead.")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            return _refusal(413, f"That is too large: {LARGEST >> 20} MB are the most.")
        if self.token is None:
            return None
        return await self._ask_for_the_token(request)

    async def _ask_for_the_token(self, request: Request) -> Response | None:
        path = request.url.path
        if path in OPEN or self._is_known(request):
            return None
        given: list[str] = []
        if path == "/" and request.method == "GET":
            given = request.query_params.getlist("token")
        elif path == "/login" and request.method == "POST":
            try:
                form = await body_of(request, LONGEST_FORM)
            except TooLarge:
                return _refusal(413, "That is no token.")
            given = parse_qs(form.decode("utf-8", "replace")).get("token", [])
        if given and self._fits(given[-1]):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, self._proof(), httponly=True, samesite="strict", secure=_is_secure(request))
            return answer
        if "text/html" in request.headers.get("accept", ""):
            return FileResponse(PAGES / "token.html", 401, {"cache-control": "no-store"})
        return _refusal(401, "A token is needed: send it as 'Authorization: Bearer TOKEN'.",
                        {"www-authenticate": "Bearer"})  # fmt: skip

    def _is_known(self, request: Request) -> bool:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            given = value.strip(" \t")  # read as latin-1, which some write, and most UTF-8
            return self._fits(given) or self._fits(given.encode("latin-1").decode("utf-8", "replace"))
        try:
            cookie = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._proof())

    def _fits(self, given: str) -> bool:
        return _same(given, self.token or "")

    def _proof(self) -> str:
        """What a browser keeps instead of the token."""
        return hmac.new((self.token or "").encode(), b"mirada's cookie", "sha256").hexdigest()


def _comes_from_elsewhere(request: Request, host: str) -> bool:
    """Whether a page of another site made the browser ask. A link to here may be followed."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return True
    site, mode = (request.headers.get(f"sec-fetch-{name}", "") for name in ("site", "mode"))
    follows_a_link = mode == "navigate" and request.method == "GET" and not request.url.path.startswith("/api/")
    return site in ("cross-site", "same-site") and not follows_a_link


def _name(host: str) -> str:
    """A Host header without its port; "" for one that is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or "" if not set(host) & set("/@?# \\") else ""
    except ValueError:
        return ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers)
