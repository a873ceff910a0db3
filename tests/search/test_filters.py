"""Conditions: what they select, and that nothing a person types reaches the database."""

import sqlite3
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirada.errors import Misuse
from mirada.search.filters import COLUMNS, condition

ROWS: list[dict[str, Any]] = [
    {"path": "/a/trip/1.jpg", "size": 10, "date": "2023-12-31 23:59:59", "latitude": 40.5, "camera": "X"},
    {"path": "/a/trip/2.jpg", "size": 20, "date": "2024-01-01 00:00:00", "latitude": None, "camera": None},
    {"path": "/a/o'hara/3.jpg", "size": 30, "date": "2024-06-15 12:00:00", "latitude": -3.0, "camera": "Y"},
    {"path": "/b/TRIP 4.jpg", "size": 40, "date": "2025-01-01 00:00:00", "latitude": 0.0, "camera": "X"},
]


def selected(text: str) -> list[int]:
    """Which of the rows, numbered from 1, by another database."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA case_sensitive_like = ON")
        connection.execute(f"CREATE TABLE rows (number, {', '.join(COLUMNS)})")
        for number, row in enumerate(ROWS, 1):
            values = [number, *(row.get(name) for name in COLUMNS)]
            connection.execute(f"INSERT INTO rows VALUES ({', '.join('?' * len(values))})", values)
        said = condition(text).replace("timestamp '", "'")
        return [number for (number,) in connection.execute(f"SELECT number FROM rows WHERE {said} ORDER BY number")]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("date > 2024", [4]), ("date >= 2024", [2, 3, 4]), ("date = 2024", [2, 3]), ("date < 2024", [1]),
        ("date <= 2024", [1, 2, 3]), ("date != 2024", [1, 4]), ("date = 2024-06", [3]), ("date > '2024-01-01'", [3, 4]),
        ("date between 2024-01 and 2024-06", [2, 3]), ("date in (2023, 2025)", [1, 4]),
        ("date = '2024-06-15 12:00'", [3]), ("date >= 2024 and path like '%trip%'", [2]),
        ("path like '%o''hara%'", [3]), ('path like "%o\'hara%"', [3]), ("path not like '%trip%'", [3, 4]),
        ("size > 10 and size < 40 or camera = 'X'", [1, 2, 3, 4]), ("(size > 10 and size < 40) and camera = 'Y'", [3]),
        ("size between 20 and 30", [2, 3]), ("size not between 20 and 30", [1, 4]), ("size in (10, 40)", [1, 4]),
        ("size not in (10, 40)", [2, 3]), ("camera is null", [2]), ("camera is not null", [1, 3, 4]),
        ("not camera = 'X'", [3]), ("latitude < -1.5", [3]), ("latitude >= +0", [1, 4]), ("NOT (size = 10)", [2, 3, 4]),
        ("SIZE == 1e1", [1]),
    ],
)  # fmt: skip
def test_what_conditions_select(text: str, numbers: list[int]) -> None:
    assert selected(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "", "path", "path = ", "vector = 1", "path = 3", "size = 'x'", "size like '1%'", "date > yesterday",
        "date > 2024-13", "path = 'a'; drop table images", "path = 'a' -- b", "1 = 1", "size = size", "size > 1 size",
        "lower(path) = 'a'", "path = 'a' union select 1", "size > (select 1)", "((size = 1)", "size in ()", "path = 'a",
        "not" * 99, "(" * 99 + "size = 1" + ")" * 99, "not " * 99 + "size = 1", "size = 1 " * 9999, "size not 3",
        "id = 1", "size = 1e999",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match=r"the condition|The condition"):
        condition(text)


@given(st.text(max_size=60))
def test_a_text_stays_a_text(text: str) -> None:
    quoted = text.replace("'", "''")
    if "\0" in text:
        return  # which no path has
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE rows (path)")
        try:
            connection.execute("INSERT INTO rows VALUES (?)", [text])
        except UnicodeEncodeError:
            return
        said = condition(f"path = '{quoted}'")
        assert connection.execute(f"SELECT count(*) FROM rows WHERE {said}").fetchone() == (1,)


@given(
    st.text(
        alphabet=st.sampled_from("size path date and or not in ( ) = < > ' \" % 1 2024 - , ; * null is"), max_size=80
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Misuse):
        assert condition(text)
