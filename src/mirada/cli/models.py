"""`mirada models`."""

from typing import Annotated, Any

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Examples: [bold]mirada models vit-s/16[/bold]; [bold]mirada models runs/photos[/bold]"
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

    pixels, made = row["preprocess"], row["provenance"]
    height, width = pixels["size"]
    lines = {
        "name": row["name"],
        "parameters": f"{row['parameters']:,}",
        "features": f"{row['dim']:,} numbers an image; one patch for {row['stride']}x{row['stride']} pixels",
        "images": f"{height}x{width} pixels, {pixels['resize']}, {pixels['interpolation']}",
        "mean, std": f"{pixels['mean']}, {pixels['std']}",
    }
    if pixels["crop_fraction"] != 1:
        lines["images"] += f", the central {pixels['crop_fraction']:.1%}"
    if row["classes"]:
        lines["classes"] = f"{len(row['classes']):,}: {', '.join(shown(name) for name in row['classes'])}"
    lines |= {key: ", ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else shown(str(value))
              for key, value in made.items() if value is not None and value != {}}  # fmt: skip
    for key, value in lines.items():
        print(f"{key:11} {value}")


def _count(number: int) -> str:
    """Three significant digits and a letter: 21.7M."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:.{3 - len(str(int(value)))}f}{letter}"
    return f"{number / 1e3:.0f}K"
