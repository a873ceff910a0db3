"""`mirada doctor`."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Example: [bold]mirada doctor runs/photos[/bold], also while it still trains"

NAMES = {
    "health/rank": "dimensions that features use (RankMe)",
    "health/feature_deviation": "deviation of features (0: all alike)",
    "health/knn": "labels that neighbours name rightly",
}


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say whether a run is healthy, and if not, what is wrong and what to change."""
    from mirada.cli.screen import print_json, shown
    from mirada.train.examine import examine

    result = examine(run)
    if as_json:
        print_json(result)
        return
    count = len(result["alarms"])
    verdict = {0: "nothing wrong", 1: "1 thing is wrong"}.get(count, f"{count} things are wrong")
    steps = f"{result['steps']:,} step{'s' * (result['steps'] != 1)}"
    print(f"{shown(result['run'])} after {steps}: {verdict}")
    for alarm in result["alarms"]:
        print(f"\n{alarm['name'].capitalize()}. {alarm['message']}\n{alarm['advice']}")
    if result["measured"]:
        print()
    for key, (first, last) in result["measured"].items():
        name = NAMES.get(key) or key.removeprefix("health/").replace("_", " ").replace("/", " ")
        print(f"  {name:38} {first:8.3g} -> {last:.3g}")
    where = shown(result["page"]) if result["page"] else "none: it cannot be written there"
    print(f"\npage    {where}")
