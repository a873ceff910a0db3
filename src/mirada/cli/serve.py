"""`mirada serve`."""

import sys
from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "Examples: [bold]mirada serve --index pictures[/bold]; "
    '[bold]mirada serve --index pictures --host 0.0.0.0 --token "a secret of yours"[/bold]'
)


def command(
    index: Annotated[str, typer.Option(metavar="DIR", help="Where the index is; or s3://BUCKET/NAME.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Where to listen; by default only this machine can reach it.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(envvar="MIRADA_TOKEN", help="What every visitor must know; needed for another --host.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Look through an index in the browser: gallery, search, why each picture was found."""
    from mirada.cli.plain import print_json, shown
    from mirada.device import choose_device
    from mirada.serve.run import serve

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "index": index})
        else:
            print(f"{shown(index)} is at {url}  (stop with Ctrl-C)")
        sys.stdout.flush()

    serve(index, host=host, port=port, token=token, device=str(choose_device(device)), on_ready=ready)
