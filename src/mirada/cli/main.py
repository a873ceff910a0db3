"""`mirada`: one file per verb, each imported when it is called."""

import sys

import typer

from mirada import __version__
from mirada.cli import classify, demo, evaluate, models, train
from mirada.errors import MiradaError

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


for verb in (train, evaluate, classify, models, demo):
    app.command(verb.__name__.rpartition(".")[2], epilog=verb.EXAMPLE)(verb.command)


def main() -> None:
    """The entry point: a person's mistake is one sentence on stderr and exit code 1, never a traceback."""
    try:
        app()
    except MiradaError as error:
        print(f"mirada: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("mirada: stopped; what was saved before is whole.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
