"""`mirada evaluate`."""

from typing import Annotated, Any

import typer

__all__ = ["EXAMPLE", "command"]

TITLES = {
    "knn": "kNN", "linear": "linear probe", "attentive": "attentive probe", "few-shot": "few-shot",
    "zero-shot": "zero-shot",
}  # fmt: skip
PROBES = (
    "accuracy (of its head), or of features: knn, linear, attentive, few-shot, zero-shot, retrieval, objects or "
    "anomaly."
)
PIXELS = ("pixel_auroc", "aupro")
METHODS = (
    "Objects: token-cut (the default), lost, attention or mask-cut, or several with commas. "
    "Anomaly: knn (the default), mahalanobis, patches or mean-shift."
)

EXAMPLE = (
    "Examples: [bold]mirada evaluate runs/photos data/ --split test[/bold]; "
    "[bold]mirada evaluate runs/unlabelled data/ --probe linear[/bold]; "
    "[bold]mirada evaluate openai:ViT-B/32 data/ --probe zero-shot --templates clip[/bold]; "
    "[bold]mirada evaluate dino:dino_vits16 masked/ --probe objects --method token-cut,lost[/bold]; "
    "[bold]mirada evaluate dino:dino_vits8 bottle/ --probe anomaly --method patches[/bold]"
)


def command(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run or a model.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled images, or images with masks.")],
    probe: Annotated[str, typer.Option(help=PROBES)] = "accuracy",
    labels: Annotated[str | None, typer.Option(help="Zero-shot: words for the classes, or a file.")] = None,
    templates: Annotated[str | None, typer.Option(help="Zero-shot: en, es, clip (80), none, ..., or a file.")] = None,
    method: Annotated[str | None, typer.Option(help=METHODS)] = None,
    refine: Annotated[bool, typer.Option("--refine", help="Objects: move edges of masks to edges of images.")] = False,
    normal: Annotated[str | None, typer.Option(metavar="CLASS", help="Anomaly: the normal class; else good.")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test or all; by default one not trained on.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn: the parts of undivided data, episodes.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 64,
    exact_pixels: Annotated[bool, typer.Option("--exact-pixels", help="Decode large JPEGs in full: slower.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that is not an image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Measure a model on labelled images, or on masks of objects, with a 95% interval."""
    from mirada.cli.screen import Screen, accuracy_line, print_json, skipped_line
    from mirada.evaluate.run import evaluate

    with Screen() as screen:
        result = evaluate(
            ref, data, probe=probe, split=split, seed=seed, batch=batch, device=device, strict=strict,
            exact_pixels=exact_pixels, labels=labels, templates=templates, method=method, refine=refine,
            normal=normal, on_progress=screen.progress,
        )  # fmt: skip
        for note in result["notes"]:
            screen.note(note)
    if as_json:
        print_json(result)
        return
    metrics = result["metrics"]
    for way in ("text_to_image", "image_to_text"):
        if found := [f"{key.partition('/')[2]} {share:.1%}" for key, share in metrics.items() if key.startswith(way)]:
            low, high = result["interval"]
            known = f" (95% interval of R@1 {low:.1%} to {high:.1%})" if way == "text_to_image" else ""
            print(f"{way.replace('_', ' ')}: {', '.join(found)}{known}")
    if "jaccard" in metrics:
        print_objects(result, method or "token-cut")
    if "auroc" in metrics:
        low, high = result["interval"]
        pixels = "".join(f", {name.replace('_', ' ')} {metrics[name]:.1%}" for name in PIXELS if name in metrics)
        line = f"{method or 'knn'} {result['split']} AUROC {metrics['auroc']:.1%} of {result['n']:,} images"
        print(f"{line} (95% interval {low:.1%} to {high:.1%}){pixels}")
    name = next((name for name in ("accuracy", "mAP") if name in metrics), None)
    for key in (key for key in metrics if key.endswith("-shot/accuracy")):
        shots = key.partition("-")[0]
        spread = f"{metrics[key]:.1%}, ±{metrics[f'{shots}-shot/std']:.1%} between episodes"
        print(f"{shots} per class: {spread}")
    title = [TITLES.get(probe, ""), "" if result["split"] == "all" else result["split"], name or ""]
    if name is not None:
        print(accuracy_line(" ".join(filter(None, title)), metrics[name], result["n"], result["interval"]))
    if result["skipped"]:
        print(skipped_line(result["skipped"]))


def print_objects(result: dict[str, Any], methods: str) -> None:
    """A line for each method, for random weights, and for the centre prior; then the interval of the first jaccard."""
    metrics, first = result["metrics"], methods.split(",")[0].strip()
    for key in (key for key in metrics if key.endswith("jaccard")):
        way = key.removesuffix("jaccard").rstrip("/")
        name = {"": first, "random": f"{first}, random weights", "centre": "centre prior"}.get(way)
        name = name or f"{way.removeprefix('random/')}{', random weights' if way.startswith('random/') else ''}"
        scores = [metrics[key.replace("jaccard", metric)] for metric in ("jaccard", "max_f", "corloc")]
        print("{}: jaccard {:.1%}, max F {:.1%}, CorLoc {:.1%}".format(name, *scores))
    low, high = result["interval"]
    images = "1 image" if result["n"] == 1 else f"{result['n']:,} images"
    print(f"{images}; 95% interval of the first jaccard {low:.1%} to {high:.1%}")
