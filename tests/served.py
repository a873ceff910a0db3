"""What the tests of the server share."""

import struct
import zlib
from typing import Any, NamedTuple

from starlette.testclient import TestClient

__all__ = ["NAMES", "Served", "failure", "found", "ids", "png_of"]

NAMES = ("copy.png", "<img src=x onerror=alert(1)>.png", 'two\nlines".png', "\u202egpj.png", "año ñandú 🦤.png")


class Served(NamedTuple):
    """An index and its pictures."""

    pictures: Any  # Path
    index: str


def found(client: TestClient, path: str, **query: Any) -> Any:
    """What is answered to a GET."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def failure(client: TestClient, status: int, path: str, **query: Any) -> str:
    """The sentence with which a GET is refused."""
    answer = client.get(path, params=query)
    assert answer.status_code == status, (answer.status_code, answer.text)
    ((key, sentence),) = answer.json().items()
    assert key == "error"
    assert sentence.endswith((".", "`."))
    return str(sentence)


def ids(answer: Any) -> list[int]:
    return [row["id"] for row in answer["pictures"]]


def png_of(width: int, height: int) -> bytes:
    """A PNG of one colour, a few kilobytes whatever its size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row = zlib.compressobj(9), bytes(1 + -(-width // 8))
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
