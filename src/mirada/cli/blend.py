"""`mirada blend`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Example: [bold]mirada blend openai:ViT-B/32 runs/birds --weight 0.5 --out models/birds[/bold]"


def command(
    first: Annotated[str, typer.Argument(metavar="A", help="A model.")],
    second: Annotated[str, typer.Argument(metavar="B", help="A run or model that was fine-tuned from it.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the blended model goes.")],
    weight: Annotated[float, typer.Option(help="0 is A, 1 is B.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Save the model between two: of a fine-tuned one and its start, it forgets less (WiSE-FT)."""
    from mirada.blend import blend
    from mirada.cli.screen import print_json, shown

    result = blend(first, second, out, weight=weight)
    if as_json:
        print_json(result)
        return
    print(f"model  {shown(result['out'])}")
