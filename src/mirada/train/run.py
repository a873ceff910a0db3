"""One training run from data to report: what `mirada train` does."""

import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from mirada.data.dataset import why
from mirada.device import choose_device
from mirada.doctor.watch import Watch
from mirada.errors import MiradaError
from mirada.evaluate.accuracy import wilson_interval
from mirada.memory import keep_freed_memory
from mirada.processes import alone, any_of, joined, processes, rank
from mirada.train.checkpoint import load_checkpoint, read_state, save_checkpoint
from mirada.train.folder import RunFolder
from mirada.train.interrupt import stop_between_steps
from mirada.train.log import Writer, check_logs, open_logs
from mirada.train.loop import NotFinite, Step, train_loop
from mirada.train.lora import merge_lora
from mirada.train.pause import Clock
from mirada.train.settings import Settings
from mirada.train.start import Monitor, Run
from mirada.train.summary import report

__all__ = ["train"]


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
        options = [*(["--device", device] if device != "auto" else []), *(["--strict"] if strict else []),
                   *(word for name in log for word in ("--log", name))]  # fmt: skip
        return _train(data, settings, out, resume, where, strict, command, log, options, watched, clock)


def _train(
    data: str, settings: Settings, out: str | None, resume: bool, device: torch.device, strict: bool,
    command: Sequence[str], log: Sequence[str], options: Sequence[str], monitor: Monitor, clock: Clock,
) -> dict[str, Any]:  # fmt: skip
    begun, leads = clock(), rank() == 0
    folder = RunFolder(out) if out else RunFolder.unused(data)
    if leads and not resume:
        folder.require_unused()
    if resume:
        settings, saved_data = folder.read_config()
        data = data or saved_data
    with ExitStack() as stack:
        if leads and resume:
            stack.enter_context(folder.held())
        run = Run(data, settings, device, strict, monitor)
        if leads and not resume:
            folder.create(run.settings, data, list(command))
            stack.enter_context(folder.held())
        to_go_on = command_to_resume(data, folder, options)
        return _carry_out(run, folder, resume, log if leads else (), to_go_on, begun, clock)


def command_to_resume(data: str, folder: RunFolder, options: Sequence[str]) -> str:
    """What a person types to go on with the run."""
    several = int(os.environ.get("LOCAL_WORLD_SIZE", processes())) if processes() > 1 else 1
    start = ["torchrun", "--nproc-per-node", str(several), "-m"] if several > 1 else []
    words = [*start, "mirada", "train", os.path.abspath(data), "--out", str(folder.path), *options, "--resume"]
    return shlex.join(words)


def _carry_out(
    run: Run, folder: RunFolder, resume: bool, log: Sequence[str], to_go_on: str, begun: float, clock: Clock
) -> dict[str, Any]:
    leads = rank() == 0
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "reading": clock() - begun}
    if resume and folder.checkpoint.exists():
        run.go_on(read_state(folder.checkpoint))
        state = load_checkpoint(folder.checkpoint, run.learner, run.optimisers, run.average)
        run.monitor.note(f"Going on after step {state['step']}.")
    if leads and resume:
        folder.forget_after(state["step"])
    used = state["seconds"]
    writers = open_logs(log, folder.path, state["step"])
    step, seconds = _train_to_the_end(run, folder, state, writers, to_go_on, clock)
    if not leads:
        return {}

    metrics, predictions = run.measure(on_progress=run.monitor.progress)
    for write in writers if metrics else ():
        write({"step": step, **metrics})
    if run.average is not None:
        run.average.swap(run.learner)  # what was measured is what is saved
    if run.settings.lora:
        merge_lora(run.model)  # which may be a teacher of what was adapted
    run.model.provenance |= {"steps": step, "metrics": metrics}
    run.model.save(folder.model)
    result: dict[str, Any] = {
        "run": str(folder.path), "model": str(folder.model), "steps": step, "images": step * run.settings.batch,
        "seconds": round(clock() - begun + used, 2), "train_seconds": seconds, "metrics": metrics,
        "classes": run.classes, "skipped": run.all_skipped(),
    }  # fmt: skip
    if predictions is not None:
        count = int((predictions.labels >= 0).sum())
        result["measured"] = count
        result["interval"] = list(wilson_interval(metrics[f"{run.validation.name}/accuracy"], count))
    elif run.validation.paired:
        result["measured"] = run.validation.paired
    result["report"] = str(
        report(
            folder, result, model=run.model, settings=run.settings, validation=run.validation.images, found=predictions
        )
    )
    return result


def _train_to_the_end(
    run: Run, folder: RunFolder, state: dict[str, Any], writers: Sequence[Writer], to_go_on: str, clock: Clock
) -> tuple[int, float]:
    """The loop with its measuring, logging and saving; returns how many updates were made, and the seconds they took.

    `state` has the updates made so far, the seconds they took, and the seconds that reading the data took; the latter
    come off a budget.
    """
    settings, leads = run.settings, rank() == 0
    step, seconds, progress = int(state["step"]), float(state["seconds"]), float(state.get("progress", 0.0))
    saved_at = clock()
    budget = settings.budget
    if budget is not None and (budget := budget - state["reading"]) <= 0:
        run.monitor.note(
            f"Reading took {state['reading']:.1f} s of a budget of {settings.budget:.1f} s: give it more than one step."
        )
        budget = 1e-3  # ends after one step

    def save() -> None:  # the smaller one first: there may be room for it alone
        run.save_model(folder, step)
        now = {"step": step, "seconds": seconds, "reading": state["reading"], "progress": progress,
               "budget": settings.budget} | run.facts  # fmt: skip
        save_checkpoint(folder.checkpoint, run.learner, run.optimisers, run.average, now)

    # A budget that left no room for another step is used up, though some of it is left.
    used_up = settings.budget is not None and progress >= 1 and state.get("budget") == settings.budget
    steps = iter(()) if used_up else train_loop(
        run.learner, run.loader, run.optimisers, run.average, settings,
        budget=budget, started=saved_at - seconds, step=step, clock=clock,
    )  # fmt: skip
    record = Recorder(run, folder, writers) if leads else None
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
                    run.monitor.note(
                        f"Saved after step {step}; the model so far is {folder.model}. To go on: {to_go_on}"
                    )
                    raise KeyboardInterrupt
            if leads:
                save()
            if stopped():
                raise KeyboardInterrupt
    except BrokenPipeError:  # who reads has left
        raise
    except (MiradaError, OSError) as error:
        said = str(error) if isinstance(error, MiradaError) else (
            f"Cannot write to {folder.path} ({why(error)}): free some space, or see whether you may write there."
        )  # fmt: skip
        kept = f" What was learned so far is in {folder.model}." * folder.model.exists()
        if folder.checkpoint.exists():
            kept = f" To go on: {to_go_on}"
        if isinstance(error, NotFinite):
            kept = f" What was learned before is in {folder.model}: start from it with --init." * folder.model.exists()
            if leads:
                folder.append({"step": step + 1, "progress": progress, "seconds": seconds, "loss": None})
        raise MiradaError(f"{said}{kept}") from error
    return step, seconds


class Recorder:
    """Measures now and then, and writes down each step."""

    def __init__(self, run: Run, folder: RunFolder, writers: Sequence[Writer]) -> None:
        self.run, self.folder, self.writers, earlier = run, folder, writers, folder.rows()
        self.watch = Watch(run.learner, run.health, earlier, run.monitor.note)
        self.measured = self._due(earlier[-1]["progress"]) if earlier else 0  # how many of the run's validations

    def __call__(self, done: Step) -> None:
        run, row = self.run, {"step": done.step, "progress": done.progress, "seconds": done.seconds, **done.scalars}
        due = self._due(done.progress)
        if due > self.measured and done.progress < 1:
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

    def _due(self, progress: float) -> int:
        return int(progress * (self.run.settings.validate + 1))
