"""What the tests of the server share."""

from typing import Any, NamedTuple

from starlette.testclient import TestClient

__all__ = ["NAMES", "Served", "failure", "found", "ids"]

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
