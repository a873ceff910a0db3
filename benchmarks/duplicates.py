"""Near-duplicates: how many edited copies are grouped with their photograph, and how many groups mix two photographs.

    python benchmarks/duplicates.py PHOTOGRAPHS/all.parquet mirada:emoji

The table has pictures in its column `image`. A copy of every fifth one, or of every one of a few, joins the index,
edited in one of five ways in turn; it counts as found if it is in a group with its own photograph. Writes
docs/numbers/duplicates.md.
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
SETS = ((1000, 5), (100, 1))  # so many photographs, of which every so manieth has a copy


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


def prepare(pictures: list[bytes], folder: Path, every: int) -> dict[str, str]:
    """Write the photographs and a copy of every so manieth; returns the edit of each copied one."""
    copied = {}
    for number, picture in enumerate(pictures):
        name = f"{number:05}"
        photograph = Image.open(BytesIO(picture)).convert("RGB")
        photograph.save(folder / f"{name}.jpg", quality=95)
        if number % every == 0:
            edit = list(EDITS)[number // every % len(EDITS)]
            copied[name] = edit
            EDITS[edit](photograph).save(folder / f"{name}-copy.jpg", quality=30 if "quality 30" in edit else 95)
    return copied


def measure(pictures: list[bytes], every: int, ref: str) -> tuple[dict[str, str], list[list[str]]]:
    """For each edit "found of copies", and the groups that hold more than one photograph."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        folder.mkdir()
        copied = prepare(pictures, folder, every)
        index, _ = mirada.Index.update(str(folder), str(Path(name) / "index"), model=ref)
        groups = [{Path(row["path"]).stem for row in group} for group in index.duplicates()]
    found: dict[str, list[bool]] = defaultdict(list)
    for photograph, edit in copied.items():
        found[edit].append(any({photograph, f"{photograph}-copy"} <= group for group in groups))
    mixed = sorted(sorted(group) for group in groups if len({stem.removesuffix("-copy") for stem in group}) > 1)
    return {edit: f"{sum(answers)} of {len(answers)}" for edit, answers in found.items()}, mixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("ref")
    options = parser.parse_args()
    pictures = pq.read_table(options.table, columns=["image"])["image"].to_pylist()
    measured = [measure(pictures[:count], every, options.ref) for count, every in SETS]
    heads = [f"{min(count, len(pictures)):,} photographs, {'every fifth' if every == 5 else 'all'} copied"
             for count, every in SETS]  # fmt: skip
    rows = [f"| {edit} | {' | '.join(found[edit] for found, _ in measured)} |" for edit in EDITS]
    mixed = [f"{len(groups)}{' (' + '; '.join(' '.join(group) for group in groups[:5]) + ')' if groups else ''}"
             for _, groups in measured]  # fmt: skip
    REPORT.write_text(
        f"""# Near-duplicates

Photographs and edited copies of some or of all of them, indexed by `{options.ref}`: how many copies are grouped with
their photograph.

| copy | {" | ".join(heads)} |
|---|{"---|" * len(heads)}
{chr(10).join(rows)}
| *groups that hold more than one photograph* | {" | ".join(mixed)} |

Machine: {machine()}.

Repeat: `python benchmarks/duplicates.py PHOTOGRAPHS/{options.table.name} {options.ref}`
""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
