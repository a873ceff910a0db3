"""`mirada evaluate`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Example: [bold]mirada evaluate runs/photos data/ --split test[/bold]"


def command(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run or a model.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled images.")],
    probe: Annotated[str, typer.Option(help="What to measure: accuracy.")] = "accuracy",
    split: Annotated[str | None, typer.Option(help="train, val or test; the last of those there by default.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 256,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that is not an image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure a model on labelled images, with a 95% interval."""
    from mirada.cli.screen import Screen, print_json
    from mirada.evaluate.run import evaluate

    with Screen() as screen:
        result = evaluate(
            ref, data, probe=probe, split=split, batch=batch, device=device, strict=strict, on_progress=screen.progress
        )
    if as_json:
        print_json(result)
        return
    low, high = result["interval"]
    print(f"{result['split']} {result['probe']} {result['metrics']['accuracy']:.1%} of {result['n']:,} images "
          f"(95% interval {low:.1%} to {high:.1%})")  # fmt: skip
    if result["skipped"]:
        print(f"skipped {len(result['skipped'])} files; the first: {result['skipped'][0]['path']!r}")
