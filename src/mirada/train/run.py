"""One training run from data to report: what `mirada train` does."""

from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mirada.backbones import build
from mirada.data.decode import decode, to_canvas
from mirada.data.images import Images, Progress
from mirada.data.loader import Loader
from mirada.data.sources import open_data, require_classes
from mirada.data.splits import train_and_validation, with_captions
from mirada.data.statistics import canvas_side, colour_statistics, some_images
from mirada.device import choose_device
from mirada.doctor.health import Health
from mirada.doctor.watch import Watch
from mirada.errors import MiradaError
from mirada.evaluate.accuracy import wilson_interval
from mirada.evaluate.predict import Predictions
from mirada.language import sum_of_terms
from mirada.loading import load
from mirada.memory import keep_freed_memory
from mirada.model import Model
from mirada.objectives import OBJECTIVES, Learner, Pairs, TwoTowers
from mirada.precision import choose_precision
from mirada.preprocess import Preprocess
from mirada.processes import agreed, alone, any_of, joined, processes, rank, start_alike
from mirada.train.average import Average
from mirada.train.batch_norm import synchronise
from mirada.train.check import check_network
from mirada.train.checkpoint import load_checkpoint, save_checkpoint
from mirada.train.folder import RunFolder
from mirada.train.freeze import freeze
from mirada.train.interrupt import stop_between_steps
from mirada.train.log import check_logs, open_logs
from mirada.train.loop import NotFinite, Step, train_loop
from mirada.train.lora import add_lora, merge_lora
from mirada.train.optimiser import build_optimisers, choose_optimiser
from mirada.train.pause import Clock
from mirada.train.settings import Settings
from mirada.train.summary import report
from mirada.train.take_over import take_over
from mirada.train.validation import Validation

__all__ = ["Monitor", "train"]

PROBED = 256  # images whose features tell of a run's health


class Monitor:
    """Who watches a run; every method may be left as it is."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Reading and measuring."""

    def step(self, step: Step, images: int) -> None:
        """After each update; `images` were seen by it."""

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        """After each validation."""


class Run:
    """Data, model and optimiser of one run, built from its settings alone."""

    def __init__(self, data: str, settings: Settings, device: torch.device, strict: bool, monitor: Monitor) -> None:
        self.device, self.monitor = device, monitor
        start = load(settings.init, on_progress=monitor.progress) if settings.init is not None else None
        name = check_network(start, settings)
        dataset = open_data(data, strict=strict)
        parts = train_and_validation(dataset, settings.seed)
        terms = sum_of_terms(settings.objective)
        if all(issubclass(OBJECTIVES[term.name], TwoTowers) for term in terms):
            parts = with_captions(parts)
        for note in parts.notes:
            monitor.note(note)
        supervised = any(term.name == "supervised" for term in terms)
        self.classes = require_classes(dataset) if supervised else None
        torch.manual_seed(settings.seed)
        backbone = start.backbone if start else build(name)
        canvas = settings.canvas or canvas_side(parts.train, settings.image_size)

        def reader(encoded: bytes) -> tuple[Tensor, float]:
            return to_canvas(decode(encoded, at_least=canvas), canvas)

        self.images = Images(parts.train, reader, strict=strict, on_progress=monitor.progress)
        if len(self.images) < settings.batch:
            chunk = settings.chunk if settings.chunk and settings.chunk <= len(self.images) else None
            batch = len(self.images) // (chunk or 1) * (chunk or 1)
            monitor.note(f"The batch is {batch}, because there are only {len(self.images)} images.")
            settings = replace(settings, batch=batch, chunk=chunk)
        settings = self._shared_evenly(settings)
        halves = agreed(choose_precision(settings.precision, device) == "bfloat16", device)
        trained_by = start.provenance.get("optimiser") if start else None
        optimiser = choose_optimiser(settings, trained_by)
        self.settings = replace(settings, precision="bfloat16" if halves else "float32", optimiser=optimiser)
        mean, std = (start.preprocess.mean, start.preprocess.std) if start else colour_statistics(self.images)
        counts = np.bincount(self.images.labels[self.images.labels >= 0], minlength=len(self.classes or []))
        facts: dict[str, Any] = {"augment": settings.augment, "balanced": settings.balanced, "counts": counts.tolist()}
        if self.classes is not None:
            facts["classes"] = len(self.classes)
        if dataset.captioned:
            facts["pairs"] = Pairs(self.images.captions(np.arange(len(self.images))), start)
        preprocess = Preprocess(
            size=(settings.image_size, settings.image_size), resize=settings.resize, mean=mean, std=std
        )
        if start is None:
            backbone.prepare(preprocess.normalise(some_images(self.images)[0]))  # before any objective copies it
        freeze(backbone, settings.freeze)
        if settings.lora:
            for tower in [backbone, *([start.text] if start and start.text else [])]:
                add_lora(tower, settings.lora)
        self.learner = Learner(backbone, settings.objective, balance=settings.balance, **facts).to(device)
        if settings.augment != Settings.augment and not any(
            "augment" in signature(type(objective)).parameters for _, objective in self.learner.terms()
        ):
            monitor.note(f"Nothing of {settings.objective} takes --augment: its terms have options of their own.")
        if settings.init is not None and (taken := take_over(self.learner, settings.init)):
            monitor.note(taken)
        synchronise(self.learner)
        start_alike(self.learner)
        self.loader = Loader(
            self.images, settings.batch // settings.parts, mean=torch.tensor(mean), std=torch.tensor(std),
            seed=settings.seed, device=device, prefetch=device.type != "cpu",
            rank=rank(), processes=processes(),
        )  # fmt: skip
        self.optimisers = build_optimisers(self.learner, self.settings)
        self.average = Average(self.learner, settings.ema) if settings.ema else None
        self.model = Model(
            name, self.learner.evaluated(), preprocess, head=self._head(start), classes=self.classes,
            mirror=settings.mirror,
            provenance={"objective": settings.objective, "init": settings.init, "data": Path(data).resolve().name,
                        "seed": settings.seed, "optimiser": optimiser} | ({"of": [start.provenance]} if start else {}),
        )  # fmt: skip
        if (towers := self.learner.towers()) is not None:
            self.model.add_towers(towers.text, towers.tokenizer, towers.project)
        self.validation = Validation(
            self.model, parts, captions=towers is not None, knew_words=bool(start and start.text), strict=strict,
            on_progress=monitor.progress,
        )  # fmt: skip
        if supervised and not self.validation.labels:
            monitor.note("No accuracy is measured: of the images that are held out, none has a label.")
        self.health = None
        if any(term.name != "supervised" for term in terms):
            pixels, labels = some_images(self.images, settings.image_size, PROBED)
            self.health = Health(preprocess.normalise(pixels.to(device)), labels)
        self.skipped = [entry._asdict() for entry in dataset.skipped]

    def measure(
        self, limit: int | None = None, on_progress: Progress | None = None
    ) -> tuple[dict[str, float], Predictions | None]:
        """Metrics on the validation split, with the averaged weights if there are any; {} where it has neither labels
        nor captions that objectives ask for."""
        if self.validation.images is None:
            return {}, None
        if self.average is not None:
            self.average.swap(self.learner)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                return self.validation.measure(limit, on_progress)
        finally:
            if self.average is not None:
                self.average.swap(self.learner)

    def all_skipped(self) -> list[dict[str, str]]:
        """Every file that took no part, with the reason."""
        images = self.validation.images
        validation = images.skipped_files() if images else []
        return self.skipped + self.images.skipped_files() + validation

    def _shared_evenly(self, settings: Settings) -> Settings:
        """With a batch, or chunks, of which every process gets as many images: objectives compare across processes."""
        size = settings.batch // settings.parts
        even = size // processes() * processes()
        if not even:
            raise MiradaError(f"{size} images at a time are too few for {processes()} processes: use a larger --batch "
                              "or --chunk, more images, or fewer processes.")  # fmt: skip
        if even == size:
            return settings
        self.monitor.note(f"{even} instead of {size} images at a time, to share them among {processes()} processes.")
        return replace(settings, batch=even * settings.parts, chunk=settings.chunk and even)

    def _head(self, start: Model | None) -> nn.Linear | None:
        if self.classes is None:
            return None
        head = self.learner.get_submodule("objectives.supervised.head")
        assert isinstance(head, nn.Linear)
        same = start is not None and start.classes == self.classes and start.head_input == "pooled"
        if same and start is not None and start.head is not None:
            head.load_state_dict(start.head.state_dict())
        return head


def train(
    data: str, settings: Settings, *, out: str | None = None, resume: bool = False, device: str = "auto",
    strict: bool = False, command: Sequence[str] = (), log: Sequence[str] = (), monitor: Monitor | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train, measure, save and report; returns what `mirada train --json` prints, and {} in the processes of a run that
    do not lead.

    The model, a checkpoint and the metrics are on disk whenever this stops: by its end, by Ctrl-C, by an error or by
    kill -9. `resume` goes on with the run in `out`, bit for bit as if it had not stopped when its length is in steps
    or epochs.
    """
    keep_freed_memory()
    where = choose_device(device)
    check_logs(log)
    clock = Clock()
    with joined(), clock.noticing_sleep():
        watched = monitor if monitor is not None and rank() == 0 else Monitor()
        return _train(data, settings, out, resume, where, strict, command, log, watched, clock)


def _train(
    data: str, settings: Settings, out: str | None, resume: bool, device: torch.device, strict: bool,
    command: Sequence[str], log: Sequence[str], monitor: Monitor, clock: Clock,
) -> dict[str, Any]:  # fmt: skip
    begun, leads = clock(), rank() == 0
    folder = RunFolder(out) if out else RunFolder.unused(data)
    if leads and not resume:
        folder.require_unused()
    if resume:
        settings, saved_data = folder.read_config()
        data = data or saved_data
    run = Run(data, settings, device, strict, monitor)
    if leads and not resume:
        folder.create(run.settings, data, list(command))
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "reading": clock() - begun}
    if resume and folder.checkpoint.exists():
        state = load_checkpoint(folder.checkpoint, run.learner, run.optimisers, run.average)
        monitor.note(f"Going on after step {state['step']}.")
    if leads and resume:
        folder.forget_after(state["step"])
    used = state["seconds"]
    seen = _train_to_the_end(run, folder, state, log if leads else (), clock)
    if not leads:
        return {}

    metrics, predictions = run.measure(on_progress=monitor.progress)
    if run.average is not None:
        run.average.swap(run.learner)  # what was measured is what is saved
    if run.settings.lora:
        merge_lora(run.model)  # which may be a teacher of what was adapted
    last = folder.rows()[-1] if folder.rows() else {"step": 0, "seconds": 0.0}
    result: dict[str, Any] = {
        "run": str(folder.path), "model": str(folder.model), "steps": last["step"], "images": seen,
        "seconds": round(clock() - begun + used, 2), "train_seconds": last["seconds"], "metrics": metrics,
        "classes": run.classes, "skipped": run.all_skipped(),
    }  # fmt: skip
    if predictions is not None:
        count = int((predictions.labels >= 0).sum())
        result["measured"] = count
        result["interval"] = list(wilson_interval(metrics[f"{run.validation.name}/accuracy"], count))
    elif run.validation.paired:
        result["measured"] = run.validation.paired
    run.model.provenance |= {"steps": last["step"], "metrics": metrics}
    run.model.save(folder.model)
    result["report"] = str(
        report(
            folder, result, model=run.model, settings=run.settings, validation=run.validation.images, found=predictions
        )
    )
    return result


def _train_to_the_end(run: Run, folder: RunFolder, state: dict[str, Any], log: Sequence[str], clock: Clock) -> int:
    """The loop with its measuring, logging and saving; returns how many images all updates saw.

    `state` has the updates made so far, the seconds they took, and the seconds that reading the data took; the latter
    come off a budget.
    """
    settings, leads = run.settings, rank() == 0
    step, seconds, progress = int(state["step"]), float(state["seconds"]), 0.0
    saved_at = clock()
    budget = settings.budget
    if budget is not None and (budget := budget - state["reading"]) <= 0:
        run.monitor.note(
            f"Reading took {state['reading']:.1f} s of a budget of {settings.budget:.1f} s: give it more than one step."
        )
        budget = 1e-3  # ends after one step

    def save() -> None:
        now = {"step": step, "seconds": seconds, "reading": state["reading"]}
        save_checkpoint(folder.checkpoint, run.learner, run.optimisers, run.average, now)

    steps = train_loop(
        run.learner, run.loader, run.optimisers, run.average, settings,
        budget=budget, started=saved_at - seconds, step=step, clock=clock,
    )  # fmt: skip
    record = Recorder(run, folder, log) if leads else None
    run.monitor.progress("starting", 0, 1)
    try:
        with stop_between_steps() as stopped:
            for done in steps:
                step, seconds, progress = done.step, done.seconds, done.progress
                if record is not None:
                    record(done)
                stopping = any_of(stopped(), run.device)
                if leads and (stopping or clock() - saved_at > 60 * settings.checkpoint_minutes):
                    save()
                    saved_at = clock()
                if stopping:
                    run.monitor.note(f"Saved after step {step}. To go on: {folder.command_to_resume()}")
                    raise KeyboardInterrupt
    except MiradaError as error:
        if leads and isinstance(error, NotFinite):
            folder.append({"step": step + 1, "progress": progress, "seconds": seconds, "loss": None})
        kept = f" The last good checkpoint is {folder.checkpoint}." if folder.checkpoint.exists() else ""
        raise MiradaError(f"{error}{kept}") from error
    if leads:
        save()
    return step * settings.batch


class Recorder:
    """Measures now and then, and writes down each step."""

    def __init__(self, run: Run, folder: RunFolder, log: Sequence[str]) -> None:
        self.run, self.folder, self.writers = run, folder, open_logs(log, folder.path)
        self.watch = Watch(run.learner, run.health, folder.rows(), run.monitor.note)
        self.measured = -1  # how many of the run's validations are due

    def __call__(self, done: Step) -> None:
        run, row = self.run, {"step": done.step, "progress": done.progress, "seconds": done.seconds, **done.scalars}
        due = int(done.progress * (run.settings.validate + 1))
        if due > max(self.measured, 0) and done.progress < 1 and (self.measured >= 0 or done.step == 1):
            metrics, _ = run.measure(limit=2000)
            row |= metrics
            run.monitor.measured(done.step, metrics)
        self.measured = due
        half = run.settings.precision == "bfloat16"
        with alone(), torch.autocast(run.device.type, torch.bfloat16, enabled=half):
            row |= self.watch.after(row)
        run.monitor.step(done, run.settings.batch)
        self.folder.append(row)
        for write in self.writers:
            write(row)
