"""`mirada classify`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "Examples: [bold]mirada classify runs/photos holiday/*.jpg --top 3[/bold]; "
    "[bold]mirada classify openai:ViT-B/32 holiday/ --labels 'beach,mountain|hill,city' --threshold 0.5[/bold]"
)


def command(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run or a model with a head or a text tower.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES", help="Files, or folders of them.")],
    labels: Annotated[str | None, typer.Option(help="Words, 'cat|kitten,dog', or a file with one a line.")] = None,
    templates: Annotated[str | None, typer.Option(help="What words are put into: en, es, clip, none, ...")] = None,
    threshold: Annotated[float | None, typer.Option(help="Say 'none of these' where no label is as likely.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels per image.")] = 5,
    exact_pixels: Annotated[bool, typer.Option("--exact-pixels", help="Decode large JPEGs in full: slower.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Label images with a trained model, or with any words."""
    from mirada.classify import classify
    from mirada.cli.screen import Screen, print_json, shown

    with Screen() as screen:
        found, skipped, notes = classify(
            ref, images, labels=labels, templates=templates, threshold=threshold, top=top, device=device,
            exact_pixels=exact_pixels, on_progress=screen.progress,
        )  # fmt: skip
        for note in notes:
            screen.note(note)
        for entry in skipped:
            screen.note(f"skipped {shown(entry['path'])}: {entry['reason']}")
    if as_json:
        print_json(found)
        return
    width = max((len(shown(answer["path"])) for answer in found), default=0)
    for answer in found:
        labels = "  ".join(f"{shown(label['label'])} {label['score']:.1%}" for label in answer["labels"])
        print(f"{shown(answer['path']):{min(width, 60)}}  {labels}")
