"""How far a share of the labels goes, from a self-supervised run and from scratch, measured on the test split.

    python benchmarks/fine_tune.py run DATA --name "CIFAR-10 (JPEG copy)" --pretraining 5m --budget 2m
    python benchmarks/fine_tune.py page

One network is trained on all images without labels. From it, and from random weights, networks are then trained on the
same labelled images with the same flags for the same time, and from random weights also for the time of both together.
Every run is the real command in a process of its own; use an otherwise idle machine. Each appends a line to
docs/numbers/fine-tuning.jsonl, from which `page` writes docs/fine-tuning.md and its picture.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from drawing import panels, save
from self_supervised import command, score

from mirada.data.sources import Source, open_data
from mirada.evaluate.linear import hold_out
from mirada.train.folder import machine
from mirada.train.settings import parse_duration

DOCS = Path(__file__).parent.parent / "docs"
RECORDS = DOCS / "numbers" / "fine-tuning.jsonl"
PAGE, PICTURE = DOCS / "fine-tuning.md", DOCS / "images" / "fine-tuning.svg"
FROM = {
    "pretrained": "self-supervised first, then fine-tuned",
    "scratch": "from scratch, as long as fine-tuning",
    "scratch-long": "from scratch, as long as both",
}
STYLE = {"pretrained": ("#0b6e4f", "o"), "scratch": ("#c8553d", "s"), "scratch-long": ("#7a7a7a", "^")}


def write(source: Source, rows: Any, folder: Path) -> None:
    """These images of a source as files, in a folder per class."""
    assert source.classes is not None
    assert source.labels is not None
    for name in source.classes:
        (folder / name).mkdir(parents=True)
    for row in rows:
        data = source.read(int(row))
        kind = "png" if data[1:4] == b"PNG" else "jpg"
        (folder / source.classes[source.labels[row]] / f"{row:06}.{kind}").write_bytes(data)


def run(options: argparse.Namespace) -> None:
    """Train on labels from each start, and append a line for each run."""
    splits = open_data(options.data).splits
    training, test = splits["train"], splits["test" if "test" in splits else "val"]
    assert training.labels is not None
    common = ["--image-size", options.image_size, "--batch", options.batch]
    network = ["--model", options.model]
    both = parse_duration(options.budget) + parse_duration(options.pretraining)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pretrained = folder / "pretrained"
        if "pretrained" in options.starts:
            command("train", options.data, *network, *common, "--recipe", options.recipe, "--objective",
                    options.objective, "--budget", options.pretraining, "--out", pretrained)  # fmt: skip
        starts = {
            "pretrained": ["--budget", options.budget, "--init", pretrained],
            "scratch": ["--budget", options.budget, *network],
            "scratch-long": ["--budget", f"{both:.0f}s", *network],
        }
        write(test, range(len(test)), folder / "data" / "test")
        for share in options.shares:
            labels = training.labels
            rows = np.arange(len(labels)) if share == 1 else hold_out(labels, 0, share)[1]
            for old in (folder / "data").glob("train"):
                old.rename(folder / f"before-{share}")
            write(training, rows, folder / "data" / "train")
            for start in options.starts:
                for seed in options.seeds:
                    out = folder / f"{start}-{share}-{seed}"
                    result = command("train", folder / "data", *common, *starts[start], "--seed", seed, "--out", out,
                                     *options.flags)  # fmt: skip
                    row = {
                        "data": options.name, "model": options.model, "image_size": options.image_size,
                        "batch": options.batch, "objective": options.objective, "recipe": options.recipe,
                        "pretraining": options.pretraining,
                        "budget": options.budget, "flags": " ".join(options.flags), "share": share,
                        "labels": len(rows), "start": start, "seed": seed, "steps": result["steps"],
                        "accuracy": round(100 * result["metrics"]["test/accuracy"], 2),
                        "measured": result["measured"], "machine": machine(),
                    }  # fmt: skip
                    with RECORDS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)


def grouped() -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The recorded rows of each setting."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for line in RECORDS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        setting = (row["data"], str(row["image_size"]), row["model"], row["objective"], row["pretraining"],
                   row["budget"], row["flags"], row["machine"], row["recipe"])  # fmt: skip
        found[setting].append(row)
    return dict(found)


def accuracies(rows: list[dict[str, Any]]) -> dict[str, dict[int, list[float]]]:
    """For each start and number of labels, those of all seeds."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["start"]][row["labels"]].append(row["accuracy"])
    return found


def verdicts(starts: dict[str, dict[int, list[float]]]) -> list[str]:
    """A sentence for each of the two kinds of training from scratch: where is self-supervision better?"""
    lines = []
    for start in ("scratch", "scratch-long"):
        both = sorted(starts["pretrained"].keys() & starts[start].keys())
        if both:
            gains = {labels: statistics.mean(starts["pretrained"][labels]) - statistics.mean(starts[start][labels])
                     for labels in both}  # fmt: skip
            told = ", ".join(f"{gain:+.1f} with {labels:,} labels" for labels, gain in gains.items())
            lines += [f"Self-supervision first, beside training {FROM[start]}: {told}.", ""]
    return lines


def draw(found: dict[tuple[str, ...], list[dict[str, Any]]]) -> None:
    """One panel for each setting: accuracy over the number of labels."""
    figure, places = panels(len(found), 6, 4.2)
    for axes, (setting, rows) in zip(places, found.items(), strict=True):
        starts = accuracies(rows)
        for start, name in FROM.items():
            points = sorted(starts[start].items())
            if points:
                colour, marker = STYLE[start]
                middle = [statistics.mean(values) for _, values in points]
                spread = [statistics.stdev(values) if len(values) > 1 else 0 for _, values in points]
                axes.errorbar([labels for labels, _ in points], middle, spread, label=name, color=colour,
                              marker=marker, capsize=3)  # fmt: skip
        axes.set(
            xscale="log", xlabel="labelled images", ylabel="test accuracy, %", title=f"{setting[0]}, {setting[1]} px"
        )
    places[0].legend(frameon=False)
    save(figure, PICTURE)


def page() -> None:
    """Write docs/fine-tuning.md and its picture."""
    found = grouped()
    draw(found)
    lines = [
        "# Self-supervision, then few labels", "",
        "A network is trained on all images without labels (`mirada train PHOTOS --objective simclr`), then on some "
        "of them with labels (`mirada train LABELLED --init RUN`), and the same network on the same labelled images "
        "from random weights. Written by `python benchmarks/fine_tune.py page` from "
        "[numbers/fine-tuning.jsonl](numbers/fine-tuning.jsonl).", "",
        "![Test accuracy over the number of labelled images](images/fine-tuning.svg)", "",
    ]  # fmt: skip
    for (data, size, model, objective, pretraining, budget, flags, where, recipe), rows in found.items():
        starts = accuracies(rows)
        seen = statistics.mean(row["steps"] * row["batch"] for row in rows if row["start"] != "scratch-long")
        counts = sorted({labels for same in starts.values() for labels in same})
        lines += [
            f"## {data}, {size} pixels", "",
            f"`{model}`; {pretraining} of `{objective}` with `--recipe {recipe}`, then {budget} with labels"
            f"{f' (`{flags}`)' if flags else ''}; test accuracy in percent, mean and standard deviation over "
            "seeds of what is trained with labels.", "",
            f"| | {' | '.join(f'{labels:,} labels' for labels in counts)} |", f"|---{'|---' * len(counts)}|",
        ]  # fmt: skip
        for start, name in FROM.items():
            if same := starts.get(start):
                cells = (f"{score(same[labels])} ({len(same[labels])})" if labels in same else "" for labels in counts)
                lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += [
            "", *verdicts(starts), f"In {budget} a network sees about {round(seen, -3):,.0f} images: it does not get "
            f"round to more labels than those. In brackets: seeds. Machine: {where}.", "",
        ]  # fmt: skip
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measure = verbs.add_parser("run")
    measure.add_argument("data")
    measure.add_argument("--name", required=True, help="what the data are, for the page")
    measure.add_argument("--objective", default="simclr(distortion={'base': 'simclr', 'blur': 0})")
    measure.add_argument("--recipe", default="self-supervised", help="of the training without labels")
    measure.add_argument("--pretraining", default="5m")
    measure.add_argument("--budget", default="2m", help="of the training with labels")
    measure.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1, 1])
    measure.add_argument("--starts", choices=FROM, nargs="+", default=list(FROM))
    measure.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    measure.add_argument("--model", default="vit-nano/4(pooling='average')")
    measure.add_argument("--image-size", type=int, default=32)
    measure.add_argument("--batch", type=int, default=64)
    measure.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="of the training with labels; the last")
    verbs.add_parser("page")
    options = parser.parse_args()
    if options.verb == "page":
        page()
    else:
        run(options)


if __name__ == "__main__":
    main()
