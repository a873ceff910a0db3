"""`mirada anomalies`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

METHODS = "knn (the default), mahalanobis, patches (finds small defects; the default with --out), or mean-shift."

EXAMPLE = (
    "Examples: [bold]mirada anomalies new/ --normal good/ --model runs/parts[/bold]; "
    "[bold]mirada anomalies bottle/test --normal bottle/train --model dino:dino_vits8 --out maps --top 20[/bold]; "
    "[bold]mirada anomalies photos/ --normal photos/[/bold], what is unusual among them"
)


def command(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images, in any form of data, or one image file.")],
    normal: Annotated[str, typer.Option(metavar="NORMAL", help="Images that are normal, all of them; two or more.")],
    model: Annotated[str | None, typer.Option(metavar="REF", help="A run or a model; else SigLIP 2 base.")] = None,
    method: Annotated[str | None, typer.Option(help=METHODS)] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Tell so many; all by default.")] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Where heat maps go: a PNG for each one told.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 64,
    exact_pixels: Annotated[bool, typer.Option("--exact-pixels", help="Decode large JPEGs in full: slower.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that is not an image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find images that are unlike the normal ones, the most unusual first.

    A score of 1 is what 99 of 100 normal images stay below when each is compared with the others; what scores more
    deserves a look.
    """
    from mirada.anomalies.run import anomalies
    from mirada.cli.screen import Screen, print_json, shown
    from mirada.search.embedder import DEFAULT, announce

    with Screen() as screen:
        if model is None:
            announce(DEFAULT, screen.note)
        found, skipped, notes = anomalies(
            data, normal, model=model or DEFAULT, method=method, top=top, out=out, seed=seed, batch=batch,
            device=device, exact_pixels=exact_pixels, strict=strict, on_progress=screen.progress,
        )  # fmt: skip
        for note in notes:
            screen.note(note)
        for entry in skipped:
            screen.note(f"skipped {shown(entry['path'])}: {entry['reason']}")
    if as_json:
        print_json(found)
        return
    for answer in found:
        print(f"{answer['score']:8.3f}  {shown(answer['path'])}")
    unusual = sum(answer["score"] > 1 for answer in found)
    with Screen() as screen:
        screen.note(f"{unusual:,} of these {len(found):,} score above 1, which 99 of 100 normal images do not.")
        if out is not None:
            screen.note(f"heat maps are in {shown(out)}")
