"""Speed of self-supervised training: Mirada beside lightly, whole loops, augmentation to updated weights.

    pip install lightly timm
    python benchmarks/self_supervised_speed.py DATA --name "CIFAR-10 (JPEG copy)"

The same network, crops, heads, batch and precision on both sides: lightly's are those of `lightly_rival.py --tuned`,
with its best number of loader workers, found in shorter runs. Mirada's side is the real command, with its
examinations, records and checkpoints. Each measurement is a process of its own, they take turns, and the first quarter
of each does not count. Mirada decodes all pictures once, before its first step, and lightly does in every batch: how
long that took is told beside, and what it makes of the ratio in a run of twenty minutes.
Writes docs/numbers/self-supervised-speed.md, or another --report. Use a machine that does nothing else.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lightly_rival import arguments, prepared, updates
from peers import import_torchvision

from mirada.train.folder import machine
from mirada.train.settings import parse_duration

REPORT = Path(__file__).parent.parent / "docs" / "numbers" / "self-supervised-speed.md"
STEADY = 0.75  # share of a measurement that counts
LONG = 20 * 60  # seconds of a run as they are in docs/objectives.md
WORKERS, CHOOSING = (0, 1, 2), "20s"
OBJECTIVES = {
    "dino": "dino(first={'base': 'dino', 'blur': 0}, second={'base': 'dino-second', 'blur': 0}, "
    "small_distortion={'base': 'dino-small', 'blur': 0})",
    "mae": "masked(method='mae')",
    "simclr": "simclr(distortion={'base': 'simclr', 'blur': 0})",
}


def rate(ends: list[float], batch: int) -> float:
    """Images per second, from the seconds at which updates ended."""
    first = max(1, round((1 - STEADY) * len(ends)))
    return batch * (len(ends) - first) / (ends[-1] - ends[first - 1])


def ours(options: argparse.Namespace, method: str) -> tuple[float, float]:
    """Images per second, and the seconds of the budget that passed before the first step."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        subprocess.run(
            [sys.executable, "-m", "mirada", "train", options.data, "--model", options.model, "--objective",
             OBJECTIVES[method], "--image-size", str(options.image_size), "--batch", str(options.batch),
             "--optimiser", "adamw", "--budget", options.budget, "--out", str(run), "--json"],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    ends = [row["seconds"] for row in rows]
    return rate(ends, options.batch), parse_duration(options.budget) - ends[-1]


def theirs(options: argparse.Namespace, method: str, workers: int, budget: str) -> float:
    """In a process of its own."""
    command = [
        sys.executable, __file__, options.data, "--lightly", method, "--workers", str(workers), "--model",
        options.model, "--image-size", str(options.image_size), "--batch", str(options.batch), "--budget", budget,
    ]  # fmt: skip
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def measure_lightly(options: argparse.Namespace) -> float:
    import_torchvision()
    rival = arguments().parse_args([
        options.data, "--method", options.lightly, "--tuned", "--model", options.model, "--image-size",
        str(options.image_size), "--batch", str(options.batch), "--budget", options.budget, "--workers",
        str(options.workers),
    ])  # fmt: skip
    return rate(list(updates(prepared(rival), rival)), options.batch)


def spread(values: list[float]) -> str:
    extremes = f" ({min(values):.0f} to {max(values):.0f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.0f}{extremes}"


def compare(options: argparse.Namespace) -> str:
    """The rows of the table."""
    lines = []
    for method in OBJECTIVES:
        best = max(WORKERS, key=lambda workers: theirs(options, method, workers, CHOOSING))
        found: dict[str, list[float]] = {"mirada": [], "reading": [], "lightly": []}
        for _ in range(options.repeats):
            speed, reading = ours(options, method)
            found["mirada"].append(speed)
            found["reading"].append(reading)
            found["lightly"].append(theirs(options, method, best, options.budget))
        ratio = statistics.median(found["mirada"]) / statistics.median(found["lightly"])
        reading = statistics.median(found["reading"])
        lines.append(
            f"| {method} | {spread(found['mirada'])} | {spread(found['lightly'])} | {best} | {ratio:.2f} | "
            f"{reading:.0f} s | {ratio * (1 - reading / LONG):.2f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--name", default="the data", help="what the data are, for the page")
    parser.add_argument("--model", default="vit-nano/4")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--budget", default="60s", help="of each measurement")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--report", type=Path, default=REPORT, help="the page to write")
    parser.add_argument("--lightly", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lightly:
        print(measure_lightly(options))
        return
    rows = compare(options)
    import_torchvision()
    import lightly

    given = ["DATA" if word == options.data else word for word in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/self_supervised_speed.py", *given])
    options.report.write_text(
        f"""# Speed of self-supervised training beside lightly

Images per second, `{options.model}` at {options.image_size} pixels, batch
{options.batch}, {options.name}: {
            f"median of {options.repeats} (smallest to largest)" if options.repeats > 1 else "measured once"
        }.

| method | Mirada | lightly {lightly.__version__} | its best number of workers | Mirada / lightly | Mirada reads first \
| ratio in 20 minutes |
|---|---|---|---|---|---|---|
{rows}

lightly decodes in every batch. Mirada decodes all pictures once, before its first step, which the last column counts
and the others do not. The same network, crops (DINO: two large and four small), heads and batch, AdamW, and the
precision that is faster on this machine. Machine: {machine()}.

Repeat: `{command}`
""",
        encoding="utf-8",
    )
    print(options.report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
