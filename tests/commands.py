"""Running commands in a test, and judging how they end."""

import io
import json
import sys
from typing import Any

from shapes import shape_picture
from typer.testing import CliRunner

from mirada.cli.main import app

__all__ = ["MIRADA", "SHORT", "TINY", "document", "png", "refused", "run"]

TINY = ["--model", "vit-pico/8(depth=1)", "--image-size", "24", "--batch", "16", "--precision", "float32"]
SHORT = [*TINY, "--steps", "2"]
MIRADA = [sys.executable, "-m", "mirada"]


def run(*arguments: object) -> Any:
    """The command in this process; `exit_code`, `stdout` and `stderr` are as a shell would see them."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document(*arguments: object) -> Any:
    """What a command that succeeds prints with --json, which is one document and nothing else."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def refused(code: int, *arguments: object) -> str:
    """What a command that fails says: on stderr, in one sentence, after which nothing else happens."""
    result = run(*arguments)
    assert result.exit_code == code, (result.exit_code, result.stderr, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("mirada: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("mirada: ")


def png(colour: str, number: int) -> bytes:
    buffer = io.BytesIO()
    shape_picture(colour, number).save(buffer, "PNG")
    return buffer.getvalue()
