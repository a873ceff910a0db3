"""What is said of vision transformers, measured small enough for a CPU core: docs/claims.md.

    python benchmarks/claims.py train DATA --name "CIFAR-10 (JPEG copy)" --runs runs/claims
    python benchmarks/claims.py distance DATA --name "CIFAR-10 (JPEG copy)" --runs runs/claims
    python benchmarks/claims.py objects EMOJI/all.parquet PHOTOGRAPHS/all.parquet --runs runs/claims
    python benchmarks/claims.py look EMOJI/all.parquet PHOTOGRAPHS/all.parquet --runs runs/claims
    python benchmarks/claims.py tasks photograph.jpg
    python benchmarks/claims.py page

`train` gives networks of about the same size the same number of updates on 2, 10, 30 and 100% of the training split,
each by the real command in a process of its own; `distance` looks inside what was trained; `objects` trains one network
with and without labels on drawings pasted on photographs, and asks both where the drawing is, and `look` draws their
answers; `tasks` draws what four pretext tasks ask. What is measured is appended to docs/numbers/claims.jsonl, from
which `page` writes the other figures and the page.
"""

import argparse
import json
from pathlib import Path

from claims_figures import bias_figure, distance_figure, objects_figure, scale_figure
from claims_page import newest, of, page
from claims_runs import KINDS, RECORDS, STATES, distance, found_objects, objects, train
from claims_tasks import tasks_figure
from PIL import Image

from mirada.inspect.pictures import Picture

DOCS = Path(__file__).parent.parent / "docs"


def save(figure: Picture, name: str, docs: Path = DOCS) -> None:
    """Small files: photographs as JPEG, lines as a PNG of few colours."""
    target = docs / "images" / name
    if target.suffix == ".jpg":
        figure.savefig(target, dpi=110, pil_kwargs={"quality": 88, "optimize": True})
        return
    figure.savefig(target, dpi=110)
    Image.open(target).convert("RGB").quantize(200).save(target, optimize=True)


def tasks(options: argparse.Namespace) -> None:
    save(tasks_figure(options.photograph), "pretext.jpg")


def look(options: argparse.Namespace) -> None:
    save(objects_figure(*found_objects(options)), "claims-objects.jpg")


def write(options: argparse.Namespace) -> None:
    records, docs = options.records, options.docs
    recorded = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    rows = newest(recorded)
    bias = of(rows, "bias")
    if distances := of(rows, "distance"):
        save(distance_figure([row for row in distances if row["seed"] == 0]), "claims-distance.png", docs)
    if bias:
        save(bias_figure(bias), "claims-bias.png", docs)
    if wide := [row for row in bias if row["kind"] == "wide ViT"]:
        save(scale_figure(bias, wide[0]["data"]), "claims-scale.png", docs)
    (docs / "claims.md").write_text(page(recorded), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, function in (("train", train), ("distance", distance)):
        verb = verbs.add_parser(name)
        verb.add_argument("data", type=Path, help="a folder with train.parquet and test.parquet or val.parquet")
        verb.add_argument("--name", required=True, help="what the data are, for the page")
        verb.add_argument("--runs", type=Path, required=True, help="where trained networks are kept")
        verb.set_defaults(run=function)
        if name == "distance":
            verb.add_argument("--count", type=int, default=64)
            continue
        verb.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
        verb.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.1, 0.3, 1.0])
        verb.add_argument("--seeds", type=int, nargs="+", default=[0])
        verb.add_argument("--steps", type=int, default=400)
        verb.add_argument("--batch", type=int, default=64)
        verb.add_argument("--tested", type=int, default=4000)
        verb.add_argument("--canvas", type=int, help="side of the pictures in memory; their own by default")
    for name, function in (("objects", objects), ("look", look)):
        verb = verbs.add_parser(name)
        verb.add_argument("emoji", type=Path)
        verb.add_argument("photographs", type=Path)
        verb.add_argument("--runs", type=Path, required=True)
        verb.add_argument("--states", nargs="+", default=list(STATES)[:2], choices=list(STATES))
        verb.add_argument("--steps", type=int, default=600)
        verb.set_defaults(run=function)
        if name == "objects":
            verb.add_argument("--seeds", type=int, nargs="+", default=[0])
            verb.add_argument("--batch", type=int, default=64)
            verb.add_argument("--pictures", type=int, default=6000)
            verb.add_argument("--tested", type=int, default=300)
    verb = verbs.add_parser("tasks")
    verb.add_argument("photograph", type=Path)
    verb.set_defaults(run=tasks)
    verb = verbs.add_parser("page")
    verb.add_argument("--records", type=Path, default=RECORDS)
    verb.add_argument("--docs", type=Path, default=DOCS, help="where claims.md and images/ are")
    verb.set_defaults(run=write)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
