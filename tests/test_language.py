"""The little language of names with options."""

import keyword
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirada.errors import MiradaError
from mirada.language import Term, call, format_call, sum_of_terms

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="()"), min_size=1).map(str.strip).filter(bool)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True).filter(lambda key: not keyword.iskeyword(key))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None)
@given(NAMES, st.dictionaries(KEYS, VALUES, max_size=4))
def test_call_inverts_format_call(name: str, options: dict[str, Any]) -> None:
    assert call(format_call(name, options)) == (name, options)


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, st.dictionaries(KEYS, SCALARS, max_size=3), st.floats(1e-6, 1e6)), min_size=1,
                max_size=4, unique_by=lambda term: term[0]))  # fmt: skip
def test_a_written_sum_reads_back(terms: list[tuple[str, dict[str, Any], float]]) -> None:
    text = " + ".join(f"{weight!r}*{format_call(name, options)}" for name, options, weight in terms)
    assert sum_of_terms(text) == [Term(*term) for term in terms]


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (call, sum_of_terms):
        with suppress(MiradaError):
            read(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vit-ti/4", ("vit-ti/4", {})),
        (" vit-ti/4 ", ("vit-ti/4", {})),
        ("resnet-18()", ("resnet-18", {})),
        ("vit-ti/4(registers=4, pooling='average')", ("vit-ti/4", {"registers": 4, "pooling": "average"})),
        ("a(x=-1.5, y=(1, 2), z=None, w=True)", ("a", {"x": -1.5, "y": (1, 2), "z": None, "w": True})),
    ],
)
def test_call(text: str, expected: tuple[str, dict[str, Any]]) -> None:
    assert call(text) == expected


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("dino", [Term("dino", {}, 1.0)]),
        ("dino(prototypes=4) + 0.5*rotation", [Term("dino", {"prototypes": 4}, 1.0), Term("rotation", {}, 0.5)]),
        ("2*(a + 0.5*b) + c", [Term("a", {}, 2.0), Term("b", {}, 1.0), Term("c", {}, 1.0)]),
        ("3*a(x='+')", [Term("a", {"x": "+"}, 3.0)]),
    ],
)
def test_sum_of_terms(text: str, terms: list[Term]) -> None:
    assert sum_of_terms(text) == terms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a(", "Cannot read"),
        ("a(x=1) b", "Cannot read"),
        ("a(x=1)(y=2)", "Cannot read"),
        ("a(1)", "need names"),
        ("a(**{'x': 1})", "need names"),
        ("a(x=y)", "not a plain value"),
        ("a(x=__import__('os').getcwd())", "not a plain value"),
        ("a(x={[]: 1})", "not a plain value"),
        ("a(x=1, x=2)", "stands twice"),
    ],
)
def test_call_refuses(text: str, message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        call(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Cannot read the objective"),
        ("a +", "Cannot read the objective"),
        ("a - b", "terms are names"),
        ("-1*a", "terms are names"),
        ("a*2", "terms are names"),
        ("2", "terms are names"),
        ("True*a", "terms are names"),
        ("a.b(x=1)", "terms are names"),
        ("0*a", "must be above 0"),
        ("1e999*a", "must be above 0"),
        ("a + 2*a(x=1)", "stands twice"),
        ("a(x=f())", "not a plain value"),
        ("a(3)", "need names"),
    ],
)
def test_sum_of_terms_refuses(text: str, message: str) -> None:
    with pytest.raises(MiradaError, match=message):
        sum_of_terms(text)
