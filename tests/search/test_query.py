"""The little language of queries."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirada.errors import Misuse
from mirada.search.query import Part, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("horse", [Part(1, "horse")]),
        ("horse + stripes - fruit", [Part(1, "horse"), Part(1, "stripes"), Part(-1, "fruit")]),
        ('0.5*"red car" + 2 * sea', [Part(0.5, "red car"), Part(2, "sea")]),
        ("- fruit + horse", [Part(-1, "fruit"), Part(1, "horse")]),
        ("a t-shirt of C++ and rock-n-roll", [Part(1, "a t-shirt of C++ and rock-n-roll")]),
        ('"rock + roll" - .5*"a - b"', [Part(1, "rock + roll"), Part(-0.5, "a - b")]),
        ("“caballo blanco” + «mar»", [Part(1, "caballo blanco"), Part(1, "mar")]),
        ('the "big" one', [Part(1, 'the "big" one')]),
        ("2 dogs", [Part(1, "2 dogs")]),
        ("photo.jpg of a cat", [Part(1, "photo.jpg of a cat")]),
        ('"photo.jpg"', [Part(1, "photo.jpg")]),
    ],
)
def test_terms_and_weights(text: str, parts: list[Part]) -> None:
    assert parse(text) == parts


def test_a_path_is_a_picture_seen_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "my beach.jpg").write_bytes(b"x")
    assert parse("my beach.jpg + 0.5*sun", str(tmp_path)) == [
        Part(1, picture=str(tmp_path / "my beach.jpg")), Part(0.5, "sun"),
    ]  # fmt: skip
    assert parse(f"{tmp_path}/my beach.jpg") == [Part(1, picture=str(tmp_path / "my beach.jpg"))]
    (tmp_path / "cat").write_bytes(b"x")  # which a word may be called, too
    assert parse("cat", str(tmp_path)) == [Part(1, "cat")]
    assert parse("./cat", str(tmp_path)) == [Part(1, picture=f"{tmp_path}/./cat")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"), ("   ", "is empty"), ("horse +", "a term missing"), ("horse + + sea", "a term missing"),
        ("0.5*", "a term missing"), ('"open', "left open"), ('"a" b', "no + or - behind"), ("beach.jpg", "no picture"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(Misuse, match=said.replace("+", r"\+")):
        parse(text)


words = st.from_regex(r"[a-z]{1,8}( [a-z]{1,8})?", fullmatch=True)
terms = st.lists(st.tuples(st.sampled_from([1, 0.5, 2.25]), words), min_size=1, max_size=5)


@given(terms, st.lists(st.booleans(), min_size=5, max_size=5), st.booleans())
def test_what_is_written_is_read(chosen: list[tuple[float, str]], minus: list[bool], quoted: bool) -> None:
    signs = [False, *minus[1 : len(chosen)]]
    written = [f'{weight}*"{word}"' if quoted else f"{weight}*{word}" for weight, word in chosen]
    text = written[0] + "".join(f" {'-' if sign else '+'} {term}" for sign, term in zip(signs[1:], written[1:],
                                                                                        strict=True))  # fmt: skip
    expected = [Part(-weight if sign else weight, word) for (weight, word), sign in zip(chosen, signs, strict=True)]
    assert parse(text) == expected


@given(st.text(max_size=40))
@example("~\0")
@example("~\ud800")
@example("~\0/cat.jpg")
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Misuse):
        assert parse(text)
