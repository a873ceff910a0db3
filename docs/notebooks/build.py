"""Write the notebooks, in English and in Spanish, from one source each.

    python docs/notebooks/build.py             # texts and code; pictures stay where the code is the same as before
    python docs/notebooks/build.py --run       # and run the code, for new pictures

A source is Python with cells between marks: `# %% [markdown] en` and `# %% [markdown] es` hold the texts as comments,
`# %%` code that both languages share, with what it printed and drew. With MIRADA_SHORT=1 the code trains for a few
steps only, for tests.
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
LANGUAGES = {"en": ".ipynb", "es": ".es.ipynb"}


class Cell(NamedTuple):
    kind: str  # "en" or "es", a text in that language, or "code"
    text: str


def read(source: Path) -> list[Cell]:
    """The cells of a source. Raises `ValueError` for a mark that is none of the three."""
    _, *parts = re.split(r"^# %%(.*)\n", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        kind = {"": "code", "[markdown] en": "en", "[markdown] es": "es"}.get(mark.strip())
        if kind is None:
            raise ValueError(f"{source.name}: '# %%{mark}' is no cell: write '# %%' or '# %% [markdown] en' or es.")
        lines = text.strip("\n").split("\n")
        cells.append(Cell(kind, "\n".join(lines if kind == "code" else [re.sub("^# ?", "", line) for line in lines])))
    return cells


def run(code: list[str]) -> list[list[dict[str, Any]]]:
    """The outputs of code cells, run one after another in a folder of their own: what they print, and their last
    expression."""
    names: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number, text in enumerate(code):
            tree = ast.parse(text)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                exec(compile(tree, f"cell {number + 1}", "exec"), names)
                value = None
                if last is not None:
                    value = eval(compile(ast.Expression(last.value), f"cell {number + 1}", "eval"), names)
            shown = [{"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())}]
            outputs.append((shown if printed.getvalue() else []) + ([result(value)] if value is not None else []))
    return outputs


def result(value: Any) -> dict[str, Any]:
    """What a notebook keeps of an expression's value."""
    data: dict[str, Any] = {"text/plain": lines(repr(value))}
    if hasattr(value, "_repr_png_"):
        data = {"image/png": base64.b64encode(value._repr_png_()).decode(), "text/plain": [f"<{type(value).__name__}>"]}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def notebook(cells: list[Cell], language: str, outputs: list[list[dict[str, Any]]]) -> str:
    """The file of one language."""
    code = iter(outputs)
    made: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        common = {"id": f"cell-{number}", "metadata": {}, "source": lines(cell.text)}
        if cell.kind == "code":
            made.append({"cell_type": "code", "execution_count": None, "outputs": next(code), **common})
        elif cell.kind == language:
            made.append({"cell_type": "markdown", **common})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def kept(target: Path, code: list[str]) -> list[list[dict[str, Any]]]:
    """The outputs of the notebook that is there, where each cell up to and with this one is the same as before."""
    known = json.loads(target.read_text(encoding="utf-8"))["cells"] if target.exists() else []
    before = [cell for cell in known if cell["cell_type"] == "code"]
    outputs: list[list[dict[str, Any]]] = [[] for _ in code]
    for number, (text, cell) in enumerate(zip(code, before, strict=False)):
        if "".join(cell["source"]) != text:
            break
        outputs[number] = cell["outputs"]
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run the code for new pictures")
    parser.add_argument("names", nargs="*", help="only these; all by default")
    options = parser.parse_args()
    for source in sorted((HERE / "source").glob("*.py")):
        if options.names and source.stem not in options.names:
            continue
        cells = read(source)
        code = [cell.text for cell in cells if cell.kind == "code"]
        outputs = run(code) if options.run else kept(HERE / f"{source.stem}.ipynb", code)
        for language, ending in LANGUAGES.items():
            target = HERE / f"{source.stem}{ending}"
            target.write_text(notebook(cells, language, outputs), encoding="utf-8")
            print(f"{target}  {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
