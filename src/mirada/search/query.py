"""The little language of queries: words, pictures, and weighted sums of both.

    horse + stripes - fruit
    0.5*red + "rock + roll" + holiday/beach.jpg

A plus or minus between terms has space around it, so that `t-shirt` and `C++` stay words. What stands in quotes is
words, whatever it looks like; what names a picture file is that picture.
"""

import os
import re
from typing import Any, NamedTuple

from mirada.data.folder import is_image
from mirada.errors import Misuse

__all__ = ["Part", "parse"]

NUMBER = r"\d+(?:\.\d*)?|\.\d+"
WEIGHT = re.compile(rf"({NUMBER})\s*\*\s*")
OPENING = {'"': '"', "“": "”", "«": "»"}
EXAMPLE = "write it as in 'horse + 0.5*stripes - fruit'"


class Part(NamedTuple):
    """One term: so much of these words, or of this picture, or of a picture's vector."""

    weight: float
    words: str | None = None
    picture: str | None = None  # a path
    vector: Any = None  # NDArray float32 (D,), of length 1


def parse(text: str, folder: str | None = "") -> list[Part]:
    """The terms of a query in order; paths are seen from `folder`, and with None all terms are words.

    Raises `Misuse` for a query that cannot be read.
    """
    parts: list[Part] = []
    rest, sign = text.strip(), 1.0
    if match := re.match(r"([+-])\s+", rest):
        rest, sign = rest[match.end() :], -1.0 if match[1] == "-" else 1.0
    while True:
        weight = 1.0
        if match := WEIGHT.match(rest):
            weight, rest = float(match[1]), rest[match.end() :]
        term, quoted, rest = _term(rest, text)
        if not term:
            raise Misuse(f"There is a term missing in the query {text!r}: {EXAMPLE}." if text.strip() else
                         "The query is empty: say in words what to look for, or give a picture.")  # fmt: skip
        parts.append(_part(sign * weight, term, quoted, folder))
        if not rest:
            break
        sign, rest = -1.0 if rest[0] == "-" else 1.0, rest[1:].lstrip()
    return parts


def _term(rest: str, text: str) -> tuple[str, bool, str]:
    """The first term, whether it was quoted, and what follows from its operator on."""
    if rest[:1] in OPENING:
        end = rest.find(OPENING[rest[0]], 1)
        if end < 0:
            raise Misuse(f"A quotation mark is left open in the query {text!r}: close it, or leave both out.")
        term, after = rest[1:end].strip(), rest[end + 1 :].lstrip()
        if after and not re.match(r"[+-](\s|$)", after):
            raise Misuse(f"There is no + or - behind {rest[: end + 1]} in the query {text!r}: {EXAMPLE}.")
        return term, True, after
    found = re.search(r"(?:^|\s)([+-])(?=\s|$)", rest)
    if found is None:
        return rest.strip(), False, ""
    return rest[: found.start()].strip(), False, rest[found.start(1) :]


def _part(weight: float, term: str, quoted: bool, folder: str | None) -> Part:
    if not quoted and folder is not None:
        try:
            path = os.path.join(folder, os.path.expanduser(term))
        except ValueError:  # a tilde before what no user's name has
            path = ""
        if os.path.isfile(path) and (is_image(term) or os.sep in term):
            return Part(weight, picture=path)
        if is_image(term) and (os.sep in term or " " not in term):
            raise Misuse(f"There is no picture {term!r}: check the path, or put the words in quotation marks.")
    return Part(weight, words=term)
