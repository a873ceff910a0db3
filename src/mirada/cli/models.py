"""`mirada models`."""

from typing import Annotated, Any

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Examples: [bold]mirada models vit-s/16[/bold]; [bold]mirada models runs/photos[/bold]"
MOST_CLASSES = 100  # that are named
FOOTER = """
Any whole number may stand behind the slash: vit-ti/4 cuts images into patches of 4x4 pixels.
One of them: mirada models vit-ti/4. Train one: mirada train PHOTOS --model vit-ti/4"""


def command(
    ref: Annotated[str | None, typer.Argument(metavar="REF", help="A size, a run or a model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """List what can be built, or show one model with its preprocessing and classes."""
    from mirada.catalogue import catalogue, describe
    from mirada.cli.screen import Screen, print_json

    with Screen() as screen:
        rows = catalogue(screen.progress) if ref is None else [describe(ref)]
    if as_json:
        print_json(rows)
    elif ref is None:
        _list(rows)
    else:
        _show(rows[0])


def _list(rows: list[dict[str, Any]]) -> None:
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':{width}}  parameters  features  pixels per patch")
    for row in rows:
        print(f"{row['name']:{width}}  {_count(row['parameters']):>10}  {row['dim']:8,}  {row['stride']:16}")
    print(FOOTER)


def _show(row: dict[str, Any]) -> None:
    from mirada.cli.screen import shown

    if "preprocess" not in row:
        for key, value in _published(row).items():
            print(f"{key:11} {value}")
        return
    pixels, made = row["preprocess"], row["provenance"]
    height, width = pixels["size"]
    lines = {
        "name": row["name"] if "architecture" not in row else f"{row['name']} = {row['architecture']}",
        "parameters": f"{row['parameters']:,}",
        "features": f"{row['dim']:,} numbers an image; one patch for {row['stride']}x{row['stride']} pixels",
        "images": f"{height}x{width} pixels, {pixels['resize']}, {pixels['interpolation']} by {pixels['resampler']}",
        "mean, std": f"{pixels['mean']}, {pixels['std']}",
    }
    if pixels["box"] not in (None, pixels["size"]):
        lines["images"] += ", resized for {}x{} and cut".format(*pixels["box"])
    if row["classes"]:
        more = "" if len(row["classes"]) <= MOST_CLASSES else " ..."
        named = ", ".join(shown(name) for name in row["classes"][:MOST_CLASSES])
        lines["classes"] = f"{len(row['classes']):,}: {named}{more}"
    lines |= {key: ", ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else shown(str(value))
              for key, value in made.items() if value is not None and value != {}}  # fmt: skip
    for key, value in (lines | _published(row)).items():
        print(f"{key:11} {value}")


def _published(row: dict[str, Any]) -> dict[str, str]:
    """What is known of the weights of a published model; nothing of others."""
    if "repository" not in row:
        return {}
    size = "of unknown size" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.0f} MB"
    gated = ", gated: accept it on the model's page first" if row["gated"] else ""
    return {
        "weights": f"{row['repository']}, {size}, {'on this machine already' if row['cached'] else 'to be fetched'}",
        "licence": f"{row['licence'] or 'not stated'}{gated}",
    }


def _count(number: int) -> str:
    """Three significant digits and a letter: 21.7M."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:.{3 - len(str(int(value)))}f}{letter}"
    return f"{number / 1e3:.0f}K"
