"""Conditions on what is known of a picture: `date > 2024 and path like '%trip%'`.

They are parsed here and written anew from what was understood: known columns, comparisons, `and`, `or`, `not`, `like`,
`in`, `between`, `is null`. Nothing a person typed reaches the database as it was typed.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from mirada.errors import Misuse

__all__ = ["COLUMNS", "condition"]

COLUMNS = {
    "path": "text", "camera": "text", "source": "text", "size": "number", "width": "number", "height": "number",
    "latitude": "number", "longitude": "number", "date": "date", "taken": "date", "modified": "date",
}  # fmt: skip
TOKEN = re.compile(r"""\s*(?:
    (?P<text>'(?:[^']|'')*'|"[^"]*")
  | (?P<date>\d{4}-\d{1,2}(?:-\d{1,2}(?:[T\ ]\d{1,2}:\d{2}(?::\d{2})?)?)?)
  | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z_]\w*)
  | (?P<sign><=|>=|<>|!=|==|[=<>(),])
)""", re.VERBOSE)  # fmt: skip
KEYWORDS = {"and", "or", "not", "like", "ilike", "in", "between", "is", "null"}
DEEPEST = 50  # parentheses within parentheses
LONGEST = 10_000  # characters
LARGEST = 1e15
EXAMPLE = """write it as in "date > 2024 and path like '%trip%'" """.strip()


class _Token(NamedTuple):
    kind: str
    text: str


def condition(text: str) -> str:
    """A safe condition in SQL. Raises `Misuse` for one that cannot be read.

    A date may be a year, a month or a day, and then stands for all of it: `date = 2024` is any moment of that year,
    `date > 2024` is after it, `date >= 2024` from its beginning on.
    """
    reader = _Reader(text)
    found = reader.any_of(0)
    if reader.peek.kind != "end":
        raise reader.stop(f"{reader.peek.text!r} is one too many")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        if len(text) > LONGEST:
            raise Misuse(f"The condition has {len(text):,} characters, and {LONGEST:,} are the most: make it shorter.")
        self.tokens: list[_Token] = []
        start, end = 0, len(text.rstrip())
        while start < end:
            match = TOKEN.match(text, start)
            if match is None or match.lastgroup is None:
                raise self.stop(f"{text[start:end].split()[0]!r} is no part of a condition")
            value = match[match.lastgroup]
            kind = match.lastgroup
            if kind == "word" and value.lower() in KEYWORDS:
                kind, value = "key", value.lower()
            self.tokens.append(_Token(kind, value))
            start = match.end()

    @property
    def peek(self) -> _Token:
        return self.tokens[self.place] if self.place < len(self.tokens) else _Token("end", "")

    def take(self) -> _Token:
        token = self.peek
        self.place += 1
        return token

    def taken(self, kind: str, text: str) -> bool:
        """Whether the next token is this one; then it is taken."""
        if self.peek == _Token(kind, text):
            self.place += 1
            return True
        return False

    def stop(self, what: str) -> Misuse:
        return Misuse(f"Cannot read the condition {self.text!r}: {what}; {EXAMPLE}, with the columns "
                      f"{', '.join(COLUMNS)}.")  # fmt: skip

    def expect(self, kind: str, text: str) -> None:
        if not self.taken(kind, text):
            raise self.stop(f"{text!r} is missing before {self.peek.text or 'the end'!r}")

    def any_of(self, depth: int) -> str:
        if depth > DEEPEST:
            raise self.stop("it is nested too deeply")
        terms = [self.all_of(depth)]
        while self.taken("key", "or"):
            terms.append(self.all_of(depth))
        return terms[0] if len(terms) == 1 else f"({' OR '.join(terms)})"

    def all_of(self, depth: int) -> str:
        terms = [self.term(depth)]
        while self.taken("key", "and"):
            terms.append(self.term(depth))
        return terms[0] if len(terms) == 1 else f"({' AND '.join(terms)})"

    def term(self, depth: int) -> str:
        if self.taken("key", "not"):
            if depth > DEEPEST:
                raise self.stop("it is nested too deeply")
            return f"(NOT {self.term(depth + 1)})"
        if self.taken("sign", "("):
            inner = self.any_of(depth + 1)
            self.expect("sign", ")")
            return inner
        return self.comparison()

    def comparison(self) -> str:
        token = self.take()
        column = token.text.lower()
        if token.kind != "word" or column not in COLUMNS:
            raise self.stop(f"there is no column {token.text!r}" if token.text else "it ends too early")
        if self.taken("key", "is"):
            negated = "NOT " if self.taken("key", "not") else ""
            self.expect("key", "null")
            return f"({column} IS {negated}NULL)"
        negated = "NOT " if self.taken("key", "not") else ""
        found = self._listed(column)
        if found is None and not negated:
            sign = self.take()
            if sign.kind != "sign" or sign.text in "(),":
                raise self.stop(f"{column} needs a comparison such as = or like")
            operator = {"==": "=", "!=": "<>"}.get(sign.text, sign.text)
            found = self._compare(column, operator)
        if found is None:
            raise self.stop("'not' needs like, in or between behind it")
        return f"({negated}{found})"

    def _listed(self, column: str) -> str | None:
        """`like`, `in`, `between`; None where neither stands next."""
        for word in ("like", "ilike"):
            if self.taken("key", word):
                if COLUMNS[column] != "text":
                    raise self.stop(f"{column} is no text, so 'like' does not apply")
                return f"{column} {word.upper()} {self._value(column)}"
        if self.taken("key", "in"):
            self.expect("sign", "(")
            options = [self._compare(column, "=")]
            while self.taken("sign", ","):
                options.append(self._compare(column, "="))
            self.expect("sign", ")")
            return f"({' OR '.join(options)})"
        if self.taken("key", "between"):
            low = self._compare(column, ">=")
            self.expect("key", "and")
            return f"({low} AND {self._compare(column, '<=')})"
        return None

    def _compare(self, column: str, operator: str) -> str:
        if COLUMNS[column] != "date":
            return f"{column} {operator} {self._value(column)}"
        first, after = self._period()
        begins, ends = (f"timestamp '{moment:%Y-%m-%d %H:%M:%S}'" for moment in (first, after))
        inside = f"({column} >= {begins} AND {column} < {ends})"
        return {
            "=": inside, "<>": f"NOT {inside}", "<": f"{column} < {begins}", ">=": f"{column} >= {begins}",
            ">": f"{column} >= {ends}", "<=": f"{column} < {ends}",
        }[operator]  # fmt: skip

    def _value(self, column: str) -> str:
        token = self.take()
        if COLUMNS[column] == "text" and token.kind == "text":
            return "'" + _unquoted(token.text).replace("'", "''") + "'"
        if COLUMNS[column] == "number" and token.kind == "number":
            if abs(float(token.text)) > LARGEST:
                raise self.stop(f"{token.text} is too large")
            return repr(float(token.text)) if re.search("[.eE]", token.text) else str(int(token.text))
        kind = "a text in quotes" if COLUMNS[column] == "text" else "a number"
        raise self.stop(f"{column} is compared with {kind}, not with {token.text or 'nothing'!r}")

    def _period(self) -> tuple[datetime, datetime]:
        """The first moment of a year, month, day or minute, and the first one after it."""
        token = self.take()
        text = _unquoted(token.text) if token.kind == "text" else token.text
        for form, following in PERIODS:
            try:
                first = datetime.strptime(text.strip().replace("T", " "), form)
                if first.year < 1000:
                    continue
                return first, following(first)
            except (ValueError, OverflowError):
                continue
        raise self.stop(f"{text or 'nothing'!r} is no date such as 2024, 2024-06 or 2024-06-30")


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=31)).replace(day=1)


PERIODS: tuple[tuple[str, Callable[[datetime], datetime]], ...] = (
    ("%Y", lambda first: first.replace(year=first.year + 1)),
    ("%Y-%m", _next_month),
    ("%Y-%m-%d", lambda first: first + timedelta(days=1)),
    ("%Y-%m-%d %H:%M", lambda first: first + timedelta(minutes=1)),
    ("%Y-%m-%d %H:%M:%S", lambda first: first + timedelta(seconds=1)),
)


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'") if text[:1] == "'" else text[1:-1]
