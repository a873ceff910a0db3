"""`mirada demo`."""

import shlex
from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Example: [bold]mirada demo --budget 60s[/bold]"


def command(
    out: Annotated[str, typer.Option(metavar="DIR", help="Where drawings and runs go.")] = "mirada-demo",
    budget: Annotated[str | None, typer.Option(help="Training time; three minutes by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split, weights, order and augmentation.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """The whole story in minutes, offline: draw, train, measure, look inside."""
    from mirada.cli.screen import Screen, print_json
    from mirada.demo import run_demo
    from mirada.errors import blame_the_command
    from mirada.train.settings import parse_duration

    with blame_the_command():
        seconds = None if budget is None else parse_duration(budget)
    with Screen() as screen:
        result = run_demo(out, budget=seconds, seed=seed, monitor=screen)
    if as_json:
        print_json(result)
        return
    low, high = result["interval"]
    print(f"{result['drawings']:,} drawings in {len(result['groups'])} groups; {result['held_out']} held out\n")
    print(f"  always the largest group    {result['chance']:6.1%}")
    print(f"  5 nearest in plain pixels   {result['nearest_pixels']:6.1%}")
    print(f"  vision transformer          {result['metrics']['val/accuracy']:6.1%}   "
          f"(95% interval {low:.1%} to {high:.1%}; {result['train_seconds']:.0f} s of training)\n")  # fmt: skip
    print(f"See what it learned and where it looks:  {result['report']}")
    print(f"Use it:  mirada classify {shlex.quote(result['run'])} PICTURE.png")
