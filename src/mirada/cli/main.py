"""`mirada`: one file per verb, each imported when it is called."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from mirada import __version__
from mirada.cli import (
    anomalies,
    blend,
    classify,
    demo,
    doctor,
    evaluate,
    export,
    index,
    inspect,
    models,
    search,
    serve,
    train,
)  # fmt: skip
from mirada.errors import MiradaError, Misuse

__all__ = ["app", "main"]

app = typer.Typer(
    name="mirada", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]},
    help="Vision transformers: from a folder of images to a trained, understood, searchable model.",
    epilog="Start with [bold]mirada demo[/bold], or [bold]mirada train PHOTOS[/bold] on a folder with a subfolder per "
    "class.",
)  # fmt: skip


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and stop.")
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


def in_one_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with what a person or the machine did wrong said in one sentence on stderr, never as a traceback.

    A traceback is left for what is Mirada's own fault.
    """

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
            sys.stdout.flush()  # or a full disk or a closed pipe would show only after Python has said goodbye
        except Misuse as error:
            _stop(str(error), 2)
        except MiradaError as error:
            _stop(str(error), 1)
        except KeyboardInterrupt:
            _stop("stopped.", 130)
        except BrokenPipeError:
            raise  # nobody reads any more; Typer ends quietly
        except OSError as error:
            where = "" if error.filename is None else f" {error.filename!r}"
            advice = "see whether the disk is full, and whether you may write there"
            _stop(f"Cannot read or write{where} ({error.strerror or error}): {advice}.", 1)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate" not in str(error):  # how PyTorch says out of memory
                raise
            _stop("The memory is not enough: use a smaller batch, image size or model.", 1)

    return run


def _stop(sentence: str, code: int) -> None:
    print(f"mirada: {sentence}", file=sys.stderr)
    raise typer.Exit(code) from None


for verb in (
    train, evaluate, classify, inspect, index, search, serve, anomalies, doctor, blend, export, models, demo,
):  # fmt: skip
    app.command(verb.__name__.rpartition(".")[2], epilog=verb.EXAMPLE)(in_one_sentence(verb.command))


def main() -> None:
    """The entry point. File names may hold what a terminal cannot show: it is spelled out instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
