"""Near-duplicates: how many edited copies are grouped with their photograph, and how many groups mix two photographs.

    python benchmarks/duplicates.py PHOTOGRAPHS/all.parquet mirada:emoji

The table has pictures in its column `image`. Of every fifth one a copy joins the index, edited in one of five ways in
turn; a copy counts as found if it is in a group with its own photograph. Writes docs/numbers/duplicates.md.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image, ImageEnhance, ImageOps

import mirada
from mirada.train.folder import machine

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "duplicates.md"
EVERY = 5


def cropped(photograph: Image.Image) -> Image.Image:
    width, height = photograph.size
    return photograph.crop((round(0.03 * width), round(0.03 * height), round(0.97 * width), round(0.97 * height)))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": lambda photograph: photograph,
    "half the size": lambda photograph: photograph.resize((photograph.width // 2, photograph.height // 2)),
    "grey": ImageOps.grayscale,
    "cropped by 3% on each side": cropped,
    "brighter by 30%": lambda photograph: ImageEnhance.Brightness(photograph).enhance(1.3),
}


def prepare(table: Path, folder: Path) -> dict[str, str]:
    """Write the photographs and their copies; returns the edit of each copied one."""
    copied = {}
    for number, picture in enumerate(pq.read_table(table, columns=["image"])["image"].to_pylist()):
        name = f"{number:05}"
        photograph = Image.open(BytesIO(picture)).convert("RGB")
        photograph.save(folder / f"{name}.jpg", quality=95)
        if number % EVERY == 0:
            edit = list(EDITS)[number // EVERY % len(EDITS)]
            copied[name] = edit
            EDITS[edit](photograph).save(folder / f"{name}-copy.jpg", quality=30 if "quality 30" in edit else 95)
    return copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("ref")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        folder.mkdir()
        copied = prepare(options.table, folder)
        index, _ = mirada.Index.update(str(folder), str(Path(name) / "index"), model=options.ref)
        groups = [{Path(row["path"]).stem for row in group} for group in index.duplicates()]
        count = len(index)
    found: dict[str, list[bool]] = defaultdict(list)
    for photograph, edit in copied.items():
        found[edit].append(any({photograph, f"{photograph}-copy"} <= group for group in groups))
    mixed = sorted(sorted(group) for group in groups if len({stem.removesuffix("-copy") for stem in group}) > 1)
    examples = "; ".join(" ".join(group) for group in mixed[:5])
    rows = [f"| {edit} | {len(answers)} | {sum(answers)} |" for edit, answers in found.items()]
    REPORT.write_text(
        f"""# Near-duplicates

{count - len(copied):,} photographs and edited copies of {len(copied)} of them, indexed by `{options.ref}`.

| copy | copies | grouped with their photograph |
|---|---|---|
{chr(10).join(rows)}

Groups that hold more than one photograph: {len(mixed)}{f" ({examples})" if mixed else ""}.

Machine: {machine()}.

Repeat: `python benchmarks/duplicates.py PHOTOGRAPHS/{options.table.name} {options.ref}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
