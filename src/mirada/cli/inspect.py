"""`mirada inspect`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "Examples: [bold]mirada inspect runs/photos cat.jpg --out report[/bold]; "
    "[bold]mirada inspect openai:ViT-B/16 holiday/ --out report --words 'beach,a red car'[/bold]; "
    "[bold]mirada inspect dino:dino_vits16 cat.jpg --out report --compare timm:deit_small_patch16_224[/bold]"
)


def command(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run or a model.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES", help="Files, or folders of them.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Where index.html goes.")],
    words: Annotated[str | None, typer.Option(help="'cat,dog': where they are, by a model with a text tower.")] = None,
    compare: Annotated[str | None, typer.Option(metavar="REF", help="Another model, side by side.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Images on the page.")] = 4,
    layer: Annotated[int | None, typer.Option(help="What is shown first, from 1; the last by default.")] = None,
    head: Annotated[int | None, typer.Option(help="What is shown first, from 1; all together by default.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Write a page that shows what a model looks at."""
    from mirada.cli.screen import Screen, print_json, shown
    from mirada.inspect.report.run import inspect

    with Screen() as screen:
        result = inspect(
            ref, images, out=out, words=words, compare=compare, most=most, layer=layer, head=head, device=device,
            on_progress=screen.progress,
        )  # fmt: skip
        for note in result["notes"]:
            screen.note(note)
        for entry in result["skipped"]:
            screen.note(f"skipped {shown(entry['path'])}: {entry['reason']}")
    if as_json:
        print_json(result)
        return
    print(f"page  {shown(result['page'])}  ({result['bytes'] / 1e6:.1f} MB; open it in a browser)")
