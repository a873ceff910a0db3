"""The little language of names with options: `dino(prototypes=4096) + 0.5*rotation`, `vit-ti/4(registers=4)`.

Read with Python's own parser, never evaluated: option values are literals only.
"""

import ast
from typing import Any, NamedTuple

from mirada.errors import MiradaError

__all__ = ["Term", "call", "format_call", "sum_of_terms"]


class Term(NamedTuple):
    """One weighted summand: `0.5*rotation(classes=4)` is Term("rotation", {"classes": 4}, 0.5)."""

    name: str
    options: dict[str, Any]
    weight: float


def call(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name(key=literal, ...)` into its name (any characters but a parenthesis) and its options."""
    name, parenthesis, rest = text.strip().partition("(")
    if not parenthesis:
        return name.strip(), {}
    try:
        tree = ast.parse(f"f({rest}", mode="eval").body
    except SyntaxError:
        raise MiradaError(f"Cannot read {text!r}: write it as {name}(option=value, ...).") from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise MiradaError(f"Cannot read {text!r}: write it as {name}(option=value, ...).")
    return name.strip(), _options(tree, text)


def format_call(name: str, options: dict[str, Any]) -> str:
    """The inverse of `call`: a name and its options as text."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})" if options else name


def sum_of_terms(text: str) -> list[Term]:
    """Read a weighted sum, in order. Weights multiply from the left: `2*(a + 0.5*b)` is 2*a + 1*b."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise MiradaError(f"Cannot read the objective {text!r}: write a sum such as 'dino + 0.5*rotation'.") from None
    terms = _terms(tree, 1.0, text)
    names = [term.name for term in terms]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise MiradaError(f"The objective {twice!r} stands twice in {text!r}: give it once, with one weight.")
    return terms


def _terms(node: ast.expr, weight: float, text: str) -> list[Term]:
    match node:
        case ast.BinOp(left, ast.Add(), right):
            return _terms(left, weight, text) + _terms(right, weight, text)
        case ast.BinOp(ast.Constant(int() | float() as factor), ast.Mult(), right) if not isinstance(factor, bool):
            if not 0 < factor < float("inf"):
                raise MiradaError(f"The weight {factor} in {text!r} must be above 0: leave the term out instead.")
            return _terms(right, weight * factor, text)
        case ast.Name(name):
            return [Term(name, {}, weight)]
        case ast.Call(ast.Name(name)):
            return [Term(name, _options(node, text), weight)]
    raise MiradaError(
        f"Cannot read {ast.unparse(node)!r} in the objective {text!r}: "
        "terms are names with options and a weight before them, such as '0.5*rotation'."
    )


def _options(node: ast.Call, text: str) -> dict[str, Any]:
    if node.args:
        raise MiradaError(f"Options in {text!r} need names: write option=value.")
    options: dict[str, Any] = {}
    for keyword in node.keywords:
        try:
            value = ast.literal_eval(keyword.value)
        except (ValueError, TypeError):
            raise MiradaError(
                f"The option {ast.unparse(keyword.value)!r} in {text!r} is not a plain value: "
                "use a number, a quoted word, True or False."
            ) from None
        if keyword.arg is None:
            raise MiradaError(f"Options in {text!r} need names: write option=value.")
        if keyword.arg in options:
            raise MiradaError(f"The option {keyword.arg!r} stands twice in {text!r}: give it once.")
        options[keyword.arg] = value
    return options
