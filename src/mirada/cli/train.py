"""`mirada train`."""

import shlex
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "Examples: [bold]mirada train photos/[/bold] (a subfolder per class, ten minutes); "
    "[bold]mirada train cifar10/ --recipe cifar10-10m[/bold]; "
    "[bold]mirada train unlabelled/ --recipe self-supervised-64[/bold] (no labels; a flat folder will do); "
    "[bold]mirada train pairs.csv --objective clip[/bold] (columns path and caption); "
    "[bold]mirada train photos/ --model vit-ti/8 --image-size 96 --epochs 50 --augment strong[/bold]"
)


def command(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder, .parquet, .csv, .jsonl or shards of images.")],
    recipe: Annotated[
        str | None, typer.Option(help="Settings by name (such as self-supervised-64) or YAML file; flags override.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Size and patch, such as vit-ti/4: see `mirada models`.")] = None,
    objective: Annotated[str | None, typer.Option(help="A sum such as 'supervised + 0.5*rotation'.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels of what the model sees.")] = None,
    balance: Annotated[str | None, typer.Option(help="Learn a sum's weights: uncertainty or gradnorm.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in passes over the images.")] = None,
    steps: Annotated[int | None, typer.Option(help="Length in updates.")] = None,
    budget: Annotated[str | None, typer.Option(help="Length in time, such as 10m; the schedule ends on time.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per update.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Images computed at a time, for less memory.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak of AdamW's learning rate; Muon's is in a recipe.")] = None,
    optimiser: Annotated[str | None, typer.Option(help="auto, adamw or muon.")] = None,
    layer_decay: Annotated[float | None, typer.Option(help="Learning-rate factor per layer, for fine-tuning.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, light, zoom or strong.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of averaged weights, such as 0.999.")] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="Give every class the same say.")] = False,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    init: Annotated[str | None, typer.Option(metavar="REF", help="A model to start from.")] = None,
    freeze: Annotated[int | None, typer.Option(help="Keep the first N layers as they are; -1: all but heads.")] = None,
    lora: Annotated[int | None, typer.Option(help="With --init: learn changes of low rank only, such as 8.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[str | None, typer.Option(metavar="RUN", help="The run's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that is not an image.")] = False,
    log: Annotated[list[str] | None, typer.Option(help="Also write to tensorboard or wandb.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Train a vision transformer on a folder of images, and write a model and a report."""
    from mirada.cli.screen import Screen, accuracy_line, print_json, shown, skipped_line
    from mirada.data.sources import open_data
    from mirada.errors import Misuse, blame_the_command
    from mirada.loading import load
    from mirada.train.run import train
    from mirada.train.settings import Settings, read_recipe
    from mirada.train.take_over import self_supervised_objective

    flags: dict[str, Any] = {
        "model": model, "objective": objective, "image_size": image_size, "epochs": epochs, "steps": steps,
        "budget": budget, "batch": batch, "chunk": chunk, "learning_rate": lr, "optimiser": optimiser,
        "layer_decay": layer_decay, "augment": augment, "ema": ema, "balanced": balanced or None,
        "precision": precision, "init": init, "freeze": freeze, "lora": lora, "balance": balance, "seed": seed,
    }  # fmt: skip
    changes = {name: value for name, value in flags.items() if value is not None}
    if resume and (changes or recipe or out is None):
        raise Misuse("To resume, give DATA, --out RUN and --resume only: the run's own settings are used.")
    settings = Settings(budget=600.0)
    with blame_the_command():
        given = read_recipe(recipe) if recipe is not None else {}
        settings = settings.with_changes(given, f"recipe {recipe}")
        settings = settings.with_changes(changes, "the command").scaled_to(settings.image_size)
    if settings.init is not None and (model is not None or (init is None and "model" in given)):
        raise Misuse("A model to start from brings its own architecture: give --init or --model.")
    with Screen() as screen:
        if settings.init is not None and not resume:
            settings = replace(settings, model=(start := load(settings.init, on_progress=screen.progress)).architecture)
            if "image_size" not in given | changes:
                settings = replace(settings, image_size=start.preprocess.size[0])
            known = self_supervised_objective(start) if "objective" not in given | changes else None
            if known is not None and open_data(data, strict=strict).classes is None:
                settings = replace(settings, objective=known)
                screen.note(f"These images have no labels: going on with {known}, as {settings.init} was made.")
        result = train(
            data, settings, out=out, resume=resume, device=device, strict=strict,
            command=["mirada", *sys.argv[1:]], log=log or (), monitor=screen,
        )  # fmt: skip
    if not result:  # a process that does not lead
        return
    if as_json:
        print_json(result)
        return
    for key, value in result["metrics"].items():
        if key.endswith("/accuracy"):
            print(accuracy_line(key.replace("/", " "), value, result["measured"], result["interval"]))
    for way in ("text_to_image", "image_to_text"):
        if found := [(key, share) for key, share in result["metrics"].items() if f"/{way}/" in key]:
            shares = ", ".join(f"{key.rpartition('/')[2]} {share:.1%}" for key, share in found)
            count = "" if "interval" in result else f", of {result['measured']:,} images"
            print(f"{found[0][0].partition('/')[0]} {way.replace('_', ' ')} {shares}{count}")
    if result["skipped"]:
        print(skipped_line(result["skipped"]))
    print(f"model   {shown(result['model'])}\nreport  {shown(result['report'])}")
    if result["classes"] or result["metrics"]:
        words = "" if result["classes"] else " --labels 'cat,dog'"
        print(f"use it  mirada classify {shlex.quote(result['run'])} IMAGES{words}")
    else:
        run = shlex.quote(result["run"])
        print(f"next    mirada doctor {run}\n        mirada evaluate {run} LABELLED --probe knn\n"
              f"        mirada index {shlex.quote(data)} --model {run} --index FOLDER")  # fmt: skip
