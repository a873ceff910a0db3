"""`mirada search`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "Examples: [bold]mirada search 'horse + stripes - fruit' --index pictures[/bold]; "
    "[bold]mirada search beach.jpg --index pictures --where \"date > 2024 and path like '%trip%'\"[/bold]"
)


def command(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help='Words, a picture\'s path, or a sum: "horse + 0.5*stripes - fruit".')
    ] = "",
    index: Annotated[str, typer.Option(metavar="DIR", help="Where the index is.")] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="At most so many pictures.")] = 10,
    where: Annotated[str | None, typer.Option(help="Of which only: \"date > 2024 and path like '%trip%'\".")] = None,
    like: Annotated[list[str] | None, typer.Option(help="A picture to find more like; may be given again.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="A picture to find less like; may be given again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show the nearest, whether they match or not.")] = False,
    model: Annotated[str | None, typer.Option(metavar="REF", help="Refused if it is not that of the index.")] = None,
    resident: Annotated[bool, typer.Option(help="Answer from a process that stays for a while.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find pictures by words, by a picture, or by sums of both."""
    from mirada.cli.plain import print_json, shown
    from mirada.errors import Misuse
    from mirada.search.resident import ask

    if not index:
        raise Misuse("Say which index to search: --index DIR.")
    found = ask(index, query, k=k, where=where, like=like or [], unlike=unlike or [], everything=everything,
                model=model, stay=resident)  # fmt: skip
    if as_json:
        print_json(found)
        return
    if not found:
        print("nothing here matches; --all shows the nearest all the same")
    for hit in found:
        print(f"{hit['score']:6.3f}  {shown(hit['path'])}")
