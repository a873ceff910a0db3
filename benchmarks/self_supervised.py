"""What each self-supervised objective learns in a given time: train, then measure frozen features on the test split.

    python benchmarks/self_supervised.py run DATA --name "CIFAR-10 (JPEG copy)" --budget 5m --objectives simclr dino
    python benchmarks/self_supervised.py page

Every run is the real command in a process of its own; use an otherwise idle machine. `untrained` and `pixels` are what
an objective has to beat: the same network before its first step, and the images themselves. Each run appends a line to
docs/numbers/self-supervised.jsonl, from which `page` writes docs/objectives.md.
"""

import argparse
import inspect
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import panels, save

import mirada
from mirada.data.decode import decode
from mirada.data.sources import Source, open_data
from mirada.evaluate.descent import linear_by_descent
from mirada.evaluate.features import Labelled
from mirada.evaluate.knn import knn
from mirada.objectives import OBJECTIVES
from mirada.preprocess import Preprocess
from mirada.train.folder import machine
from mirada.train.settings import parse_duration

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "numbers" / "self-supervised.jsonl"
PAGE = ROOT / "docs" / "objectives.md"
LEVEL = 1.0  # points that say nothing: test images are few, and seeds differ by as much
PICTURE = ROOT / "docs" / "images" / "objectives.svg"


def command(*arguments: object) -> dict[str, Any]:
    """The document that a command of Mirada prints."""
    done = subprocess.run(
        [sys.executable, "-m", "mirada", *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def probes(ref: Path, data: str) -> dict[str, Any]:
    """kNN and linear probe, in percent, and how many images were measured."""
    found = {probe: command("evaluate", ref, data, "--probe", probe) for probe in ("knn", "linear")}
    scores = {probe: round(100 * document["metrics"]["accuracy"], 2) for probe, document in found.items()}
    return {**scores, "measured": found["knn"]["n"]}


def trained(data: str, objective: str, options: argparse.Namespace, seed: int, out: Path) -> dict[str, Any]:
    """One run, or the network as it is before one."""
    length = ["--budget", options.budget]
    text = objective
    if objective == "untrained":
        text, length = "rotation", ["--steps", 1, "--optimiser", "adamw", "--lr", "1e-12"]
    result = command(
        "train", data, "--model", options.model, "--image-size", options.image_size, "--batch", options.batch,
        "--objective", text, "--seed", seed, "--out", out, *length,
        *(options.flags if objective != "untrained" else []),
    )  # fmt: skip
    row = {"steps": result["steps"], "images": result["images"], "train_seconds": round(result["train_seconds"])}
    if objective == "untrained":
        row = {"steps": 0, "images": 0, "train_seconds": 0}
    doctor = command("doctor", out)
    health = {key.removeprefix("health/"): round(last, 4) for key, (_, last) in doctor["measured"].items()}
    return {**row, **probes(out, data), "alarms": [alarm["name"] for alarm in doctor["alarms"]], "health": health}


def pixels(data: str, side: int) -> dict[str, Any]:
    """The images themselves as features, squashed to the size that networks see."""
    splits = open_data(data).splits
    preprocess = Preprocess(size=(side, side), resize="squash")

    def read(source: Source) -> Labelled:
        rows = torch.stack([preprocess(decode(source.read(index))).flatten() for index in range(len(source))])
        return Labelled(rows, torch.from_numpy(np.asarray(source.labels)))

    known, asked = read(splits["train"]), read(splits["test" if "test" in splits else "val"])
    classes = int(known.labels.max()) + 1
    scores = {"knn": dict(knn(known, asked, classes)), "linear": dict(linear_by_descent(known, asked, classes))}
    found = {probe: round(100 * metrics["accuracy"], 2) for probe, metrics in scores.items()}
    return {"steps": 0, "images": 0, "train_seconds": 0, **found, "measured": len(asked.labels), "alarms": []}


def run(options: argparse.Namespace) -> None:
    """Measure, and append a line for each run."""
    for seed in options.seeds:
        for objective in options.objectives:
            with tempfile.TemporaryDirectory() as folder:
                found = (
                    pixels(options.data, options.image_size)
                    if objective == "pixels"
                    else trained(options.data, objective, options, seed, Path(folder) / "run")
                )
            still = objective in ("pixels", "untrained")
            row = {
                "data": options.name, "library": f"mirada {mirada.__version__}", "objective": objective,
                "model": "" if objective == "pixels" else options.model, "image_size": options.image_size,
                "batch": options.batch, "flags": "" if still else " ".join(options.flags),
                "budget": "" if still else options.budget, "seed": seed, **found, "machine": machine(),
            }  # fmt: skip
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def rows() -> list[dict[str, Any]]:
    """All that was recorded."""
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]


def score(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def tables(recorded: list[dict[str, Any]]) -> list[str]:
    """One table for each data set and length of training, best linear probe first."""
    setting = ("data", "model", "image_size", "batch")
    lines: list[str] = []
    trained_rows = [row for row in recorded if row["budget"]]
    for key in sorted({(*(row[name] for name in setting), row["budget"]) for row in trained_rows}):
        data, model, size, batch, budget = key
        mine = [row for row in trained_rows if (*(row[name] for name in setting), row["budget"]) == key]
        still = [row for row in recorded if not row["budget"] and row["data"] == data and row["image_size"] == size
                 and row["model"] in ("", model)]  # fmt: skip
        named = list(dict.fromkeys(row["machine"] for row in mine))  # the first needs no mark
        groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in mine + still:
            where = row["machine"] if row["budget"] else named[0]
            groups[(row["objective"], row["library"], row["flags"], where)].append(row)
        seeds = sorted({row["seed"] for row in mine})
        lines += [
            f"### {data}, {size} pixels, `{model}`, {budget} of training", "",
            "| objective | by | linear probe | kNN | images seen | seeds | alarms |", "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        order = sorted(groups.items(), key=lambda item: -statistics.mean(row["linear"] for row in item[1]))
        settings: list[str] = []
        for (objective, library, flags, where), same in order:
            name = f"*{objective}*" if objective in ("pixels", "untrained") else f"`{short(objective)}`"
            how = f"`{objective}` {flags}".strip() if flags else f"`{objective}`" * (objective != short(objective))
            if where != named[0]:
                how = f"{how or f'`{objective}`'}, on machine {named.index(where) + 1}"
            if how and how not in settings:
                settings.append(how)
            number = f" <sup>{settings.index(how) + 1}</sup>" if how else ""
            tuned = ", tuned" if flags.startswith("tuned") else ""
            alarms = sorted({alarm for row in same for alarm in row["alarms"]})
            lines.append(
                f"| {name}{number} | {library}{tuned} | {score([row['linear'] for row in same])} | "
                f"{score([row['knn'] for row in same])} | "
                f"{statistics.mean(row['images'] for row in same):,.0f} | {len(same)} | {', '.join(alarms) or 'none'} |"
            )
        lines += [
            "", *([*(f"{number}. {how}" for number, how in enumerate(settings, 1)), ""] if settings else []),
            f"Accuracy in percent on {mine[0]['measured']:,} test images, mean and standard deviation over seeds "
            f"({', '.join(map(str, seeds))}); batch {batch}. Machine{'s' * (len(named) > 1)}: "
            f"{named[0] if len(named) == 1 else '; '.join(f'({n}) {one}' for n, one in enumerate(named, 1))}.", "",
            *baselines(mine, still), *sums(mine),
            f"Repeat: `python benchmarks/self_supervised.py run DATA --name '{data}' --model \"{model}\" --image-size "
            f"{size} --batch {batch} --budget {budget} --objectives \"...\" --flags ...`.", "",
        ]  # fmt: skip
    return lines


def short(objective: str) -> str:
    """Its name without options, but for a single word that makes another method of it."""
    word = r"\(\w+='(?P<word>\w+)'\)"
    return re.sub(rf"{word}|\(.*?\)", lambda found: f"({found['word']})" if found["word"] else "", objective)


def baselines(trained_rows: list[dict[str, Any]], still: list[dict[str, Any]]) -> list[str]:
    """A sentence for each measure: what does not beat the untrained network and the images themselves?"""
    lines = []
    for measure, title in (("linear", "the linear probe"), ("knn", "nearest neighbours")):
        bar = max((row[measure] for row in still), default=0.0)
        seeds: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
        for row in trained_rows:
            name = f"{'' if row['library'].startswith('mirada') else 'lightly: '}`{short(row['objective'])}`"
            seeds[name, row["objective"], row["flags"], row["machine"]].append(row[measure])
        best: dict[str, float] = defaultdict(float)  # of the settings of a method
        for (name, *_), found in seeds.items():
            best[name] = max(best[name], statistics.mean(found))
        good = sorted(name for name, found in best.items() if found > bar + LEVEL)
        bad = sorted(set(best) - set(good))
        who = "all" if not bad else f"all but {', '.join(bad)}" if len(bad) < len(good) else f"only {', '.join(good)}"
        lines.append(f"By {title}, {who} beat both the untrained network and the pixels by more than {LEVEL:g}.")
    return [" ".join(lines), ""]


def draw(recorded: list[dict[str, Any]]) -> bool:
    """The linear probe over the length of training of all that was trained for several, a panel for each data set; and
    what is to beat there."""
    curves: dict[tuple[str, int], dict[tuple[str, str, str], dict[float, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in recorded:
        if row["budget"]:
            name = short(row["objective"])
            by = row["library"].split()[0].replace("mirada", "")
            minutes = parse_duration(row["budget"]) / 60
            curve = (f"{name} {by}".strip(), row["flags"], row["machine"])
            curves[row["data"], row["image_size"]][curve][minutes].append(row["linear"])
    several = {
        panel: {key: points for key, points in found.items() if len(points) > 1}
        for panel, found in sorted(curves.items())
    }
    drawn = {panel: found for panel, found in several.items() if found}
    if not drawn:
        return False
    figure, axes = panels(len(drawn), 6.5, 4.6)
    for place, ((data, size), found) in zip(axes, drawn.items(), strict=True):
        ends = []
        still = [row["linear"] for row in recorded
                 if not row["budget"] and (row["data"], row["image_size"]) == (data, size)]  # fmt: skip
        if still:
            bar = max(still)
            place.axhline(bar, color="#7a7a7a", linestyle=":")
            place.annotate(
                "untrained or pixels", (0, bar), xycoords=("axes fraction", "data"), xytext=(4, 3),
                textcoords="offset points", color="#7a7a7a", fontsize=8,
            )  # fmt: skip
        for (name, *_), points in found.items():
            minutes, scores = zip(*sorted((at, statistics.mean(same)) for at, same in points.items()), strict=True)
            (line,) = place.plot(minutes, scores, marker="o", linewidth=2.5 if " + " in name else 1.5)
            ends.append((scores[-1], minutes[-1], name, line.get_color()))
        low, high = place.get_ylim()
        room, line_height = 0.0, 0.045 * (high - low)
        for end, at, name, colour in sorted(ends):
            room = max(room, end)  # so that names do not overlap
            text = f"the sum of {name.count(' + ') + 1}" if " + " in name else name
            place.annotate(text, (at, room), xytext=(6, 0), textcoords="offset points", va="center", color=colour,
                           fontsize=8)  # fmt: skip
            room += line_height
        ticks = sorted({at for points in found.values() for at in points})
        place.set(xscale="log", xlabel="minutes of training", ylabel="linear probe, %", title=f"{data}, {size} px")
        place.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        place.minorticks_off()
        place.margins(x=0.25)
    save(figure, PICTURE)
    return True


def sums(trained_rows: list[dict[str, Any]]) -> list[str]:
    """A paragraph for each sum whose terms were all trained alone too: is it better than the best of them?"""
    lines: list[str] = []
    for together in dict.fromkeys(row["objective"] for row in trained_rows if " + " in row["objective"]):
        names = (together, *together.split(" + "))
        ways: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        for row in trained_rows:
            if row["objective"] in names and row["library"].startswith("mirada"):
                for way in ((row["flags"], row["machine"]), (row["flags"],)):
                    ways[way][row["objective"]].append((row["linear"], row["images"]))
        whole = {way: {name: tuple(map(statistics.mean, zip(*same, strict=True))) for name, same in found.items()}
                 for way, found in ways.items() if len(found) == len(names)}  # fmt: skip
        if not whole:
            continue
        # Mean scores, and images seen, with the same flags and, where there are such, on one machine.
        way = max(whole, key=lambda way: (len(way), whole[way][together][0]))
        best = dict(whole[way])
        linear, images = best.pop(together)
        alone = max(best, key=lambda name: best[name][0])
        gain = linear - best[alone][0]
        verdict = "is level with" if abs(gain) <= LEVEL else "beats" if gain > 0 else "does not beat"
        lines += [
            f"The sum `{together}` {verdict} the best of its terms alone on the linear probe: {linear:.1f} against "
            f"{best[alone][0]:.1f} of `{alone}`. In the same time the sum sees {images:,.0f} images, that term "
            f"{best[alone][1]:,.0f}." + ("" if len(way) == 2 else " They were not all trained on one machine."), "",
        ]  # fmt: skip
    return lines


def described() -> list[str]:
    """A line for each objective: its paper, what it asks, and its options, from the code."""
    lines = ["| name | what it asks | options |", "|---|---|---|"]
    for name, kind in OBJECTIVES.items():
        text = " ".join((inspect.getdoc(inspect.getmodule(kind)) or "").split("\n\n")[0].split())
        text = re.sub(r"arXiv:([\d.]+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text).replace("|", "\\|")
        options = [
            f"`{option.name}`" for option in inspect.signature(kind.__init__).parameters.values()
            if option.kind is inspect.Parameter.KEYWORD_ONLY
        ]  # fmt: skip
        lines.append(f"| `{name}` | {text} | {', '.join(options)} |")
    return lines


def page() -> None:
    """Write docs/objectives.md and its picture."""
    recorded = rows()
    curves = ["![The linear probe over the length of training](images/objectives.svg)", ""] if draw(recorded) else []
    further = "; *tuned further* also the crops, temperatures, prototypes and momentum of Mirada's own row"
    further = further if any("further" in row["flags"] for row in recorded) else ""
    text = "\n".join([
        "# Objectives", "",
        "What a network can be trained to do, alone or in any sum, with `mirada train PHOTOS --objective "
        '"simclr + 0.5*rotation"`. This page is written by `python benchmarks/self_supervised.py page` from the code '
        "and from recorded runs ([numbers/self-supervised.jsonl](numbers/self-supervised.jsonl)).", "",
        *described(), "",
        "## What each learns", "",
        "Frozen features are measured by a linear probe and by nearest neighbours (`mirada evaluate --probe linear`, "
        "`--probe knn`). *untrained* is the same network before its first step, *pixels* the images themselves (their "
        "linear probe by descent and without a penalty, since they are thousands of numbers each). The last column is "
        "what `mirada doctor` said.", "",
        "lightly's rows are those of `benchmarks/lightly_rival.py`: the same network, batch, time and probes, with two "
        "workers (none is faster for DINO and SimCLR), and its own transforms, heads and losses at the defaults of its "
        "classes, which are made for ImageNet; its learning rate's peak is 5e-4 for a batch of 256, in proportion to "
        "the batch, unless a row says another. *tuned* has heads as small as Mirada's, half the jitter, no blur and "
        "fewer crops"
        + further + ". What lightly has no setting for, "
        "and Mirada's recipe has, is half the image size for most of the time. A machine that is called (AVX2) has "
        "neither AVX-512 nor bfloat16, and sees about half as many images in the same time. "
        "How fast both are: "
        "[numbers/self-supervised-speed.md](numbers/self-supervised-speed.md). What it is worth where there are few "
        "labels: [fine-tuning.md](fine-tuning.md).", "",
        *curves,
        *tables(recorded),
    ])  # fmt: skip
    PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measure = verbs.add_parser("run")
    measure.add_argument("data")
    measure.add_argument("--name", required=True, help="what the data are, for the page")
    measure.add_argument("--budget", default="5m")
    measure.add_argument("--seeds", type=int, nargs="+", default=[0])
    measure.add_argument("--objectives", nargs="+", default=["pixels", "untrained", *list(OBJECTIVES)[1:]])
    measure.add_argument("--model", default="vit-nano/4")
    measure.add_argument("--image-size", type=int, default=32)
    measure.add_argument("--batch", type=int, default=256)
    measure.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="more flags for mirada train; the last")
    verbs.add_parser("page")
    options = parser.parse_args()
    if options.verb == "page":
        page()
    else:
        run(options)


if __name__ == "__main__":
    main()
