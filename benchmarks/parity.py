"""Write the table of docs/checkpoints.md: how far each family's outputs are from its own library's.

    make parity

Runs the tests of tests/checkpoints, which do the comparing, and puts what they measured between the page's marks.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "checkpoints.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"
OUTPUTS = ("encode_image", "patches", "logits", "encode_text")
PEERS = ("timm", "transformers", "open_clip_torch", "torchvision")


def measured() -> list[dict[str, Any]]:
    """The rows of a run of the tests."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "pytest", "-q", "tests/checkpoints"]
        environment = os.environ | {"MIRADA_PARITY": str(target)}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
        rows: list[dict[str, Any]] = json.loads(target.read_text())
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each variant, a family after the other."""
    families: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for row in rows:
        families[row["family"]].setdefault(row["variant"], {}).update(row["errors"])
    others = [name for variants in families.values() for errors in variants.values() for name in errors]
    outputs = [*OUTPUTS, *sorted(set(others) - set(OUTPUTS))]
    lines = [f"| library | variant | {' | '.join(outputs)} |", "|---|---|" + "---|" * len(outputs)]
    for family, variants in families.items():
        for variant, errors in variants.items():
            cells = [f"{errors[name]:.1e}" if name in errors else "" for name in outputs]
            lines.append(f"| {family} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    rows = measured()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    versions = ", ".join(f"{name} {version(name)}" for name in PEERS)
    made = f"{BEGIN}{table(rows)}\n\nMeasured with PyTorch {version('torch')}, {versions}.\n{END}"
    PAGE.write_text(before + made + after)


if __name__ == "__main__":
    main()
