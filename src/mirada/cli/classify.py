"""`mirada classify`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Example: [bold]mirada classify runs/photos holiday/*.jpg --top 3[/bold]"


def command(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run or a model with a head.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES", help="Files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Labels per image.")] = 5,
    exact_pixels: Annotated[bool, typer.Option("--exact-pixels", help="Decode large JPEGs in full: slower.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Label images with a trained model."""
    from mirada.classify import classify
    from mirada.cli.screen import Screen, print_json, shown

    with Screen() as screen:
        found, skipped = classify(
            ref, images, top=top, device=device, exact_pixels=exact_pixels, on_progress=screen.progress
        )
        for entry in skipped:
            screen.note(f"skipped {shown(entry['path'])}: {entry['reason']}")
    if as_json:
        print_json(found)
        return
    width = max((len(shown(answer["path"])) for answer in found), default=0)
    for answer in found:
        labels = "  ".join(f"{shown(label['label'])} {label['score']:.1%}" for label in answer["labels"])
        print(f"{shown(answer['path']):{min(width, 60)}}  {labels}")
