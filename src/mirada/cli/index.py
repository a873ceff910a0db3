"""`mirada index`."""

from typing import Annotated, Any

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "Examples: [bold]mirada index ~/Pictures --index pictures[/bold]; "
    "[bold]mirada index photos/ --model runs/words --index photos.index --watch[/bold]"
)


def command(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder of pictures, or any other form of data.")],
    index: Annotated[str, typer.Option(metavar="DIR", help="Where the index is, or goes; or s3://BUCKET/NAME.")],
    model: Annotated[
        str | None, typer.Option(metavar="REF", help="That of the index; of a new one, SigLIP 2 base by default.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and take in what changes.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Make pictures searchable, or bring an index up to date: only what is new or changed is looked at."""
    from mirada.cli.screen import Screen, print_json, shown
    from mirada.device import choose_device
    from mirada.search.embedder import DEFAULT, announce
    from mirada.search.index import Index
    from mirada.search.table import exists, location, require_room
    from mirada.search.watch import changes_of

    where = str(choose_device(device))
    with Screen() as screen:
        if not exists(location(index)):
            require_room(location(index))
            announce(model or DEFAULT, screen.note)
        found, changes = Index.update(data, index, model=model, device=where, batch=batch, on_progress=screen.progress)
        for skipped in changes.skipped[:10]:
            screen.note(f"skipped {shown(skipped.path)}: {skipped.reason}")
        if len(changes.skipped) > 10:
            screen.note(f"... and {len(changes.skipped) - 10:,} more")
    if not as_json:
        print(_sentence(changes, len(found), index), flush=True)
    else:
        print_json({
            "index": index, "added": changes.added, "updated": changes.updated, "moved": changes.moved,
            "removed": changes.removed, "unchanged": changes.unchanged, "embedded": changes.embedded,
            "rows": len(found), "skipped": [skipped._asdict() for skipped in changes.skipped],
        })  # fmt: skip
    if watch:
        with Screen() as screen:
            screen.note(f"watching {shown(data)}; stop with Ctrl-C")
            for more in changes_of(data, index, model=model, device=where, batch=batch, on_progress=screen.progress):
                screen.note(_sentence(more, len(found), index))


def _sentence(changes: Any, rows: int, index: str) -> str:
    from mirada.cli.screen import shown

    counts = {name: getattr(changes, name) for name in ("added", "updated", "moved", "removed")}
    done = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing changed"
    left_out = f"; {len(changes.skipped):,} skipped" if changes.skipped else ""
    return f"{done}; {rows:,} pictures in {shown(index)}{left_out}"
