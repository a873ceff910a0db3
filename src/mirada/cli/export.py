"""`mirada export`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "Examples: [bold]mirada export runs/photos --format timm --out photos-timm[/bold], then in Python "
    "[bold]timm.create_model('local-dir:photos-timm', pretrained=True)[/bold]; [bold]mirada export runs/photos "
    "--format hf --out photos-hf[/bold], then [bold]AutoModelForImageClassification.from_pretrained('photos-hf')[/bold]"
)


def command(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run or a model.")],
    layout: Annotated[str, typer.Option("--format", help="timm, or hf for transformers.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="A new folder, or one that export wrote before.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Write a model as other libraries load it, with the same outputs, or say why not.

    They have ViTs of the papers (train with --model vit-ti/16, for example) and all that was loaded from them; the
    network that `mirada train` takes by default is Mirada's own.
    """
    from pathlib import Path

    from mirada.cli.screen import Screen, print_json, shown
    from mirada.export.layouts import export, require_layout, require_replaceable
    from mirada.loading import load

    require_layout(layout)
    require_replaceable(Path(out))  # before anything is fetched
    with Screen() as screen:
        done = export(load(ref, on_progress=screen.progress), layout, out)
        for note in done.notes:
            screen.note(f"note: {note}")
    if as_json:
        print_json(done._asdict() | {"out": str(done.out)})
        return
    print(f"{shown(str(done.out))}: {done.architecture}, as {', '.join(done.files)}")
