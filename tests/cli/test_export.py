"""`mirada export` as a person meets it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mirada
from mirada.cli.main import app


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("layout", "architecture", "files"), [
    ("timm", "vit_base_patch8_224", ["config.json", "model.safetensors"]),
    ("hf", "ViTForImageClassification", ["config.json", "model.safetensors", "preprocessor_config.json"]),
])  # fmt: skip
def test_a_run_becomes_a_folder(
    layout: str, architecture: str, files: list[str], trained_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("export", trained_run, "--format", layout, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    document = json.loads(result.stdout)
    notes = document.pop("notes")
    assert document == {"out": str(out), "format": layout, "architecture": architecture, "files": files}
    assert sorted(path.name for path in out.iterdir()) == files
    assert bool(notes) == (layout == "hf")
    assert all(f"note: {note}" in result.stderr for note in notes)
    assert mirada.load(out).classes == ["blue", "green", "red"]
    again = run("export", out, "--format", layout, "--out", out)
    assert again.exit_code == 0
    assert again.stdout == f"{out}: {architecture}, as {', '.join(files)}\n"


@pytest.mark.parametrize(("layout", "code", "said"), [
    ("onnx", 2, "--format onnx is not there yet: this version writes timm and hf."),
    ("openvino", 2, "--format openvino is not there yet"), ("keras", 2, "There is no format 'keras': choose timm or"),
])  # fmt: skip
def test_other_formats(layout: str, code: int, said: str, tmp_path: Path) -> None:
    result = run("export", "vit-pico/8", "--format", layout, "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_said_in_one_sentence(trained_run: Path, tmp_path: Path) -> None:
    lacking = run("export", "vit-pico/8(pooling='sequence')", "--format", "timm", "--out", tmp_path / "out")
    assert (lacking.exit_code, lacking.stdout) == (1, "")
    assert lacking.stderr.startswith("mirada: timm has no pooling='sequence': ")
    (tmp_path / "thesis.tex").write_text("...")
    foreign = run("export", trained_run, "--format", "timm", "--out", tmp_path)
    assert (foreign.exit_code, foreign.stdout) == (1, "")
    assert "holds thesis.tex, which no export wrote" in foreign.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_help_shows_an_example() -> None:
    result = run("export", "--help")
    assert result.exit_code == 0
    assert "mirada export runs/photos --format timm --out" in " ".join(result.stdout.split())
