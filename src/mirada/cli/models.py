"""`mirada models`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Example: [bold]mirada models vit-s/16[/bold]"


def command(
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help="One model; all sizes by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """List what can be built or loaded, with sizes."""
    from rich.console import Console
    from rich.table import Table

    from mirada.catalogue import catalogue, describe
    from mirada.cli.screen import print_json

    rows = catalogue() if ref is None else [describe(ref)]
    if as_json:
        print_json(rows)
        return
    if ref is not None:
        for key, value in rows[0].items():
            print(f"{key:12} {value:,}" if isinstance(value, int) else f"{key:12} {value}")
        return
    table = Table(box=None, header_style="bold")
    for column, align in (("name", "left"), ("parameters", "right"), ("dim", "right"), ("stride", "right")):
        table.add_column(column, justify="right" if align == "right" else "left")
    for row in rows:
        table.add_row(row["name"], f"{row['parameters']:,}", str(row["dim"]), str(row["stride"]))
    Console().print(table)
