"""`mirada models`."""

import shutil
import textwrap
from collections.abc import Callable
from typing import Annotated, Any

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "Examples: [bold]mirada models dinov2[/bold]; [bold]mirada models openai:ViT-B/32[/bold]"
MOST_CLASSES = 20  # that are named
GAP = 2  # between columns
NARROW = 100  # columns of a terminal, below which some facts are left out
LABEL = 12  # columns before what is said of one model
Row = dict[str, Any]
PARTS: dict[str, Callable[[Row], Any]] = {  # of the list; a row is in the first that it belongs to
    "Sizes to train": lambda row: "source" not in row,
    "With this package, for images and words": lambda row: row["source"] == "mirada",
    "Published, for images and words": lambda row: row["text_parameters"],
    "Published, for images and labels": lambda row: row["head"],
    "Published, for images": bool,
}
FOOTER = """
params   parameters that an image meets; text: those that words meet
GFLOPs   multiply-adds for one image of px by px pixels, in billions
dim      numbers in a feature; patch: its side, any whole number behind a slash
licence  of the weights, by their authors; *: to be accepted on their page first

Published models that are not listed load by their names too.
Some of them:  mirada models siglip
One of them:   mirada models openai:ViT-B/32
Train a size:  mirada train PHOTOS --model vit-ti/4"""
CLEANING = {  # steps of `mirada.tokenizer`, as a person would say them
    "fix": "broken letters mended", "unescape": "HTML's characters read", "spaces": "spaces joined",
    "underscores": "underscores made spaces", "punctuation": "punctuation left out",
}  # fmt: skip
RESAMPLERS = {"pillow": "as Pillow does", "torch": "as PyTorch does on bytes", "torch-float": "as PyTorch does"}


def command(
    ref: Annotated[
        str | None, typer.Argument(metavar="REF", help="A size, a run, a published model, or a part of their names.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """List what can be built or loaded, or show one model: sizes, licence, what it expects of images and words."""
    from mirada.catalogue import catalogue, describe, is_model
    from mirada.cli.screen import Screen, print_json

    rows = catalogue(ref or "") if ref is None or not is_model(ref) else []
    one = ref is not None and not rows
    if one:
        with Screen() as screen:
            rows = [describe(str(ref), screen.progress)]
    if as_json:
        print_json(rows)
    elif one:
        _show(rows[0])
    else:
        _list(rows)


# --- many ------------------------------------------------------------------------------------------------------------


def _list(rows: list[Row]) -> None:
    for part, belongs in PARTS.items():
        if chosen := [row for row in rows if belongs(row)]:
            rows = [row for row in rows if not belongs(row)]
            typer.secho(part, bold=True)
            _table(chosen)
            print()
    print(FOOTER.strip())


def _table(rows: list[Row]) -> None:
    """Names and columns of facts. What has the same name as the part that it is in, or no room, is left out; a name
    that is too long for what the columns leave stands on a line of its own."""
    columns = {
        "params": [_count(row["parameters"]) for row in rows],
        "text": [_count(row["text_parameters"] or 0) for row in rows],
        "GFLOPs": [_three(row["gflops"]) for row in rows],
        "px": [str(row["size"][0]) for row in rows],
        "dim": [f"{row['dim']:,}" for row in rows],
        "patch": [str(row["stride"]) for row in rows],
        "labels": [f"{row['head'] or 0:,}" for row in rows],
        "licence": [f"{row.get('licence')}{'*' * bool(row.get('gated'))}" for row in rows],
    }
    sizes = "source" not in rows[0]
    narrow = _width() < NARROW
    for name, wanted in (("text", rows[0]["text_parameters"] and not narrow), ("patch", sizes),
                         ("labels", rows[0]["head"] and not narrow), ("licence", not sizes)):  # fmt: skip
        if not wanted:
            del columns[name]
    widths = {name: max(len(name), *map(len, cells)) for name, cells in columns.items()}
    room = _width() - sum(width + GAP for width in widths.values())
    names = [row["name"] for row in rows]
    first = min(max(map(len, names)), max(room, 20))
    for name, cells in (("", columns.keys()), *zip(names, zip(*columns.values(), strict=True), strict=True)):
        if len(name) > first:
            print(name)
            name = ""
        line = "".join(
            " " * GAP + (cell if column == "licence" else f"{cell:>{width}}")
            for cell, (column, width) in zip(cells, widths.items(), strict=True)
        )
        print(f"{name:{first}}{line}")


# --- one -------------------------------------------------------------------------------------------------------------


def _show(row: Row) -> None:
    from mirada.cli.screen import shown

    lines = {"name": row["name"]}
    if row["architecture"] not in (None, row["name"]):
        lines["network"] = row["architecture"]
    if row["parameters"] is not None:
        height, width = row["size"]
        text = "" if row["text_parameters"] is None else f" for images, {row['text_parameters']:,} for words"
        lines["parameters"] = f"{row['parameters']:,}{text}"
        lines["work"] = f"{_three(row['gflops'])} GFLOPs (multiply-adds) for an image of {height}x{width} pixels"
        lines["features"] = f"{row['dim']:,} numbers an image; one patch for {row['stride']}x{row['stride']} pixels"
    if "preprocess" in row:
        lines |= {"images": _images(row["preprocess"]), "colours": _colours(row["preprocess"])}
        lines |= {} if row["text"] is None else _words(row["text"])
    else:
        lines["expects"] = _unread(row)
    if row["head"]:
        lines["classes"] = f"{row['head']:,}"
    if classes := [name for number, name in enumerate(row.get("classes") or ()) if name != str(number)]:
        more = "" if len(classes) <= MOST_CLASSES else " ..."
        lines["classes"] += f": {', '.join(shown(name) for name in classes[:MOST_CLASSES])}{more}"
    lines |= _published(row)
    lines |= {key: ", ".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else shown(str(value))
              for key, value in row.get("provenance", {}).items() if value is not None and value != {}}  # fmt: skip
    for key, value in lines.items():
        print(_hanging(key, value))


def _unread(row: Row) -> str:
    """Why nothing is known of what a model expects."""
    if row["gated"]:
        return "what its files say, which are to be had once its licence is accepted"
    if row["checkpoint"] is None:
        return "nobody knows: there is no checkpoint among its files"
    if "safetensors" in row["checkpoint"]:
        return "what its files say, of which the beginning did not arrive: try again"
    return f"what {row['checkpoint']} says, which is of a kind that has to be fetched whole to be read"


def _hanging(key: str, value: str) -> str:
    """A line, or as many as the terminal's width makes it."""
    return textwrap.fill(
        value, _width(), initial_indent=f"{key:{LABEL}}", subsequent_indent=" " * LABEL, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _images(pixels: Row) -> str:
    """`224x224 pixels: the shorter side becomes 248, and the middle is cut out; bicubic, as Pillow does`."""
    (height, width), (tall, wide) = pixels["size"], pixels["box"] or pixels["size"]
    cut = "" if (height, width) == (tall, wide) else ", and the middle is cut out"
    border = {None: "of the mean colour", (0, 0, 0): "in black"}.get(
        pixels["fill"] and tuple(pixels["fill"]), f"in the colour {pixels['fill']}"
    )
    covers = f"the shorter side becomes {tall}" if tall == wide else f"they come to cover {tall}x{wide}"
    how = {
        "crop": f"{covers}, and the middle is cut out",
        "squash": f"stretched to {tall}x{wide}, whatever their shape{cut}",
        "pad": f"made to fit into {tall}x{wide}, with a border {border}{cut}",
        "none": "left as large as they are, and the middle is cut out",
    }[pixels["resize"]]
    smooth = "" if pixels["antialias"] else ", without antialiasing"
    how += "" if pixels["resize"] == "none" else f"; {pixels['interpolation']}, {RESAMPLERS[pixels['resampler']]}"
    return f"{height}x{width} pixels: {how}{smooth}"


def _colours(pixels: Row) -> str:
    mean, std = (
        " ".join(f"{value:.4g}" for value in (values if len(set(values)) > 1 else values[:1]))
        for values in (pixels["mean"], pixels["std"])
    )
    return f"red, green and blue from 0 to 1, minus {mean}, divided by {std}"


def _words(text: Row) -> dict[str, str]:
    """What a text tower expects: how long a row is and what fills it, and what happens to letters."""
    tokens = text["tokenizer"]
    ends = [f"id {tokens[key]} {where}" for key, where in (("start", "before"), ("end", "after"))
            if tokens[key] is not None]  # fmt: skip
    around = f", with {' and '.join(ends)} a text's own" if ends else ""
    case = "lower-cased" if text["lower_case"] else "capitals kept"
    own = "its own" if tokens["vocabulary"] == "stored" else "CLIP's"
    letters = ", ".join([case, *(CLEANING[step] for step in tokens["clean"] if step in CLEANING)])
    letters += f"; {own} vocabulary of {text['vocabulary_size']:,}"
    return {
        "words": f"{tokens['context']} tokens{around}; longer texts are cut, shorter ones filled up on the "
                 f"{tokens['pad_side']} with id {tokens['pad']}",
        "letters": "cannot be read: no vocabulary was published with it" if text["lower_case"] is None else letters,
    }  # fmt: skip


def _published(row: Row) -> dict[str, str]:
    """What is known of the weights of a published model; nothing of others."""
    if "repository" not in row:
        return {}
    size = "of unknown size" if row["bytes"] is None else _bytes(row["bytes"])
    here = "on this machine already" if row["cached"] else "not on this machine yet"
    licence, authors = row["licence"] or "not stated", row["licence_of_authors"]
    if authors not in (None, licence, "unknown"):
        licence = f"{authors} by its authors, {licence} on its page"
    gated = "; gated: accept it on the model's page, then log in with `hf auth login`" if row["gated"] else ""
    return {"weights": f"{row['repository']}, {size}, {here}", "licence": f"{licence}{gated}"}


# --- numbers ---------------------------------------------------------------------------------------------------------


def _width() -> int:
    """Of the terminal; where there is none, as wide as it takes."""
    return shutil.get_terminal_size((10_000, 0)).columns


def _bytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 0.9995e9 else f"{number / 1e6:,.0f} MB" if number >= 1e6 else \
        f"{number / 1e3:,.0f} KB"  # fmt: skip


def _count(number: int) -> str:
    """Three significant digits and a letter: 21.7M."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if number >= 0.9995 * size:
            return f"{_three(number / size)}{letter}"
    return f"{number / 1e3:.0f}K"


def _three(value: float) -> str:
    """As many digits as three significant ones need: 1.25, 17.6, 191, 1,863."""
    return f"{value:,.{max(0, 3 - len(str(int(value))))}f}"
