"""`mirada classify`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Example: [bold]mirada classify runs/photos holiday/*.jpg --top 3[/bold]"


def command(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run or a model with a head.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Labels per image.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Label images with a trained model."""
    from mirada.classify import classify
    from mirada.cli.screen import Screen, print_json

    with Screen() as screen:
        found, skipped = classify(ref, images, top=top, device=device, on_progress=screen.progress)
        for entry in skipped:
            screen.note(f"skipped {entry['path']!r}: {entry['reason']}")
    if as_json:
        print_json(found)
    else:
        for answer in found:
            labels = "  ".join(f"{label['label']} {label['score']:.1%}" for label in answer["labels"])
            print(f"{answer['path']}  {labels}")
    if skipped and not found:
        raise typer.Exit(1)
