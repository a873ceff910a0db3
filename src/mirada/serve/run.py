"""Running the server, until it is stopped."""

import socket
import threading
from collections.abc import Callable
from typing import Any

from mirada.errors import MiradaError, Misuse

__all__ = ["serve"]

BACKLOG = 512


def serve(
    where: str, *, host: str = "127.0.0.1", port: int = 8000, token: str | None = None, device: str = "cpu",
    on_ready: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Serve the index `where` at http://host:port/, with port 0 at one that is free. `on_ready` is told the address.

    Raises:
        Misuse: an address that others can reach, without a token.
        MiradaError: there is no such index, the port is taken, or FastAPI is not installed.
    """
    uvicorn = _uvicorn()
    from mirada.serve.app import create_app
    from mirada.serve.guard import is_loopback
    from mirada.serve.shelf import Shelf

    if token is not None and not token.strip():
        raise Misuse("The token is empty: give --token a long random text.")
    if token is None and not is_loopback(host):
        raise Misuse(f"Others could reach {host!r}: give a token too, --token TEXT, which every visitor must know.")
    shelf = Shelf(where, device=device)
    listening = _listen(host, port)
    config = uvicorn.Config(create_app(shelf, token), log_level="warning", access_log=False, server_header=False,
                            timeout_graceful_shutdown=2)  # fmt: skip
    threading.Thread(target=_warm, args=[shelf], daemon=True).start()
    if on_ready is not None:
        name = f"[{host}]" if ":" in host else host
        on_ready(f"http://{name}:{listening.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listening])


def _uvicorn() -> Any:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MiradaError(
            f"The server needs {error.name}, which is not installed: run pip install 'mirada[serve]'."
        ) from error
    return uvicorn


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MiradaError(f"Cannot listen on {host} port {port} ({why}): choose another --port or --host.") from error


def _warm(shelf: Any) -> None:
    """Load the model before the first search asks for it; what is wrong with it is said to the first who searches."""
    try:
        with shelf.lock:
            shelf.index.vectors.refresh()
            _ = shelf.index.embedder, shelf.index.background
    except MiradaError:
        return
