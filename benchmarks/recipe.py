"""Prove a recipe: run it with several seeds, print the scores, and record them with the command in docs/numbers.

    python benchmarks/recipe.py cifar10-10m DATA --seeds 0 1 2

Each run is the real command in a process of its own; use an otherwise idle machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NUMBERS = Path(__file__).parent.parent / "docs" / "numbers"


def run(recipe: str, data: str, seed: int, out: Path) -> dict[str, Any]:
    """The document that `mirada train --json` prints."""
    command = [sys.executable, "-m", "mirada", "train", data, "--recipe", recipe, "--seed", str(seed)]
    done = subprocess.run([*command, "--out", str(out), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(recipe: str, name: str, results: dict[int, dict[str, Any]], machine: str) -> str:
    """The page: one row per seed, then mean and standard deviation."""
    split = next(key for key in next(iter(results.values()))["metrics"] if key.endswith("/accuracy"))
    scores = [100 * result["metrics"][split] for result in results.values()]
    rows = [
        f"| {seed} | {100 * result['metrics'][split]:.2f} | {result['steps']:,} | {result['images']:,} | "
        f"{result['train_seconds']:.0f} | {result['seconds']:.0f} |"
        for seed, result in results.items()
    ]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    seeds = " ".join(map(str, results))
    return "\n".join([
        f"# {recipe}", "",
        f"{split.partition('/')[0]} accuracy in percent, **{statistics.mean(scores):.2f}{spread}** "
        f"(mean and standard deviation of {len(scores)} seeds).", "",
        "| seed | accuracy | steps | images seen | training s | whole command s |",
        "|---|---|---|---|---|---|", *rows, "",
        f"Data: {name}. Machine: {machine}.", "",
        f"Repeat: `python benchmarks/recipe.py {recipe} DATA --seeds {seeds}`", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--name", help="what the data are, for the page; the folder's name by default")
    options = parser.parse_args()
    import yaml

    results: dict[int, dict[str, Any]] = {}
    machine = ""
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            out = Path(folder) / str(seed)
            results[seed] = run(options.recipe, options.data, seed, out)
            machine = yaml.safe_load((out / "config.yaml").read_text())["machine"]
            print(seed, results[seed]["metrics"], flush=True)
    page = table(options.recipe, options.name or Path(options.data).name, results, machine)
    (NUMBERS / f"{Path(options.recipe).stem}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
