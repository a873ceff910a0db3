"""The training loop: batches in, one `Step` out after each update. It knows a Learner and nothing of objectives.

A generator, so that whoever runs it decides between two steps whether to measure, save, draw or stop.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mirada.data.loader import Loader, mix_seed
from mirada.errors import MiradaError
from mirada.objectives import Learner
from mirada.processes import agreed, average_in_place, rank
from mirada.train.average import Average
from mirada.train.conflict import conflicts
from mirada.train.optimiser import rate_at, set_rates
from mirada.train.parts import gradients
from mirada.train.settings import Settings

__all__ = ["NotFinite", "Step", "train_loop"]

LOOKS = 20  # at the gradients of single terms, in a run


class NotFinite(MiradaError):  # noqa: N818  # it says what the loss is
    """The loss or its gradient is not a number any more."""


class Step(NamedTuple):
    """What one update did."""

    step: int  # 1 after the first update
    progress: float  # in (0, 1]
    seconds: float  # since the start, over all resumed parts
    scalars: dict[str, float]  # "loss", "<objective>/<scalar>", "learning_rate", "gradient_norm"


def train_loop(
    learner: Learner, loader: Loader, optimisers: list[torch.optim.Optimizer], average: Average | None,
    settings: Settings, *, started: float, step: int = 0, budget: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Step]:  # fmt: skip
    """Update until the settings' end.

    Args:
        started: `clock()` of the first step; earlier for a resumed run, by what it has used already.
        step: updates already made.
        budget: seconds from `started` to the last step; None where the settings' length is in steps or epochs.
        clock: tells the seconds.

    Raises:
        NotFinite: the loss is not a number any more; no weight has been touched by that step.
    """
    views, device = learner.views, loader.device
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    factors = {id(factor) for factor in learner.balance.parameters()} if learner.balance is not None else set()
    clipped = [parameter for parameter in parameters if id(parameter) not in factors]  # theirs are of another kind
    total = steps_of(settings, loader) if budget is None else 0
    last, looked = 0.0, -1
    half = settings.precision == "bfloat16"
    shared = [parameter for parameter in learner.backbone.parameters() if parameter.requires_grad]
    # A part of a batch says something else than all of it where samples are compared.
    several = len(learner.weights) > 1 and bool(shared) and not (settings.parts > 1 and learner.contrasts)
    while True:
        begun = clock()
        seconds = begun - started
        progress = step / total if budget is None else agreed((seconds + last / 2) / budget, device)
        if progress >= 1 and (budget is None or not last):
            return
        progress = min(progress, 1.0)  # where what came between two steps took what was left of a budget
        learner.train()
        seed = mix_seed(settings.seed, step, 0xD0, *[rank()] * bool(rank()))
        torch.manual_seed(seed)
        share = rate_at(progress, settings)
        set_rates(optimisers, share)

        def part(number: int, step: int = step, progress: float = progress) -> dict[str, dict[str, Tensor]]:
            samples = loader.batch(step * settings.parts + number, image_size_at(progress, settings))
            return to_device(views(samples), device)

        fights: dict[str, float] = {}
        due = several and int(progress * LOOKS) > looked
        if settings.parts == 1 or due:
            before = [(buffer, buffer.clone()) for buffer in learner.buffers()] if settings.parts > 1 else []
            batch = part(0)  # in full precision
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                result = learner(batch, progress)
        if due:
            looked = int(progress * LOOKS)
            fights = conflicts({name: weight * float(result.get(f"{name}/factor", 1.0)) * result[f"{name}/loss"]
                                for name, weight in learner.weights.items()}, shared)  # fmt: skip
            for buffer, value in before:
                buffer.copy_(value)  # as if nobody had looked
            if settings.parts > 1:
                del batch, result  # and their graph with them
        if settings.parts == 1:
            result["loss"].backward()
            scalars = {name: value.detach().float().to(device) for name, value in result.items()}
        else:
            scalars = gradients(learner, part, settings.parts, progress, seed=seed, half=half, device=device)
        average_in_place(parameter.grad for parameter in parameters if parameter.grad is not None)
        average_in_place(scalars.values())
        norm = nn.utils.clip_grad_norm_(clipped, settings.clip or math.inf)
        values = {name: float(value) for name, value in scalars.items()}
        if not math.isfinite(values["loss"]) or not bool(torch.isfinite(norm)):
            raise NotFinite(
                f"The loss or its gradient became {'infinite' if math.isinf(values['loss']) else 'not a number'} "
                f"at step {step + 1}: try a lower --lr, or --precision float32."
            )
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        learner.after_step(progress)
        if average is not None:
            average.update(learner)
        step += 1
        ended = clock()
        last = ended - begun
        done = step / total if budget is None else agreed((ended - started) / budget, device)
        if budget is not None and done + agreed(last / 2 / budget, device) >= 1:
            done = 1.0  # there is no room for another step
        values |= fights | {"learning_rate": optimisers[0].param_groups[-1]["lr"], "gradient_norm": float(norm)}
        yield Step(step, done, ended - started, values)
        if done >= 1 and budget is not None:
            return


def steps_of(settings: Settings, loader: Loader) -> int:
    """The run's length in updates."""
    if settings.steps is not None:
        return settings.steps
    epochs = 30.0 if settings.epochs is None else settings.epochs
    return max(1, math.ceil(epochs * loader.steps_per_epoch / settings.parts))


def image_size_at(progress: float, settings: Settings) -> tuple[int, int]:
    """Height and width of the views at `progress`."""
    early = settings.early_size is not None and progress < settings.early_share
    side = settings.early_size if early and settings.early_size is not None else settings.image_size
    return side, side


def to_device(batch: dict[str, dict[str, Tensor]], device: torch.device) -> dict[str, dict[str, Tensor]]:
    """The views on `device`; a view that two objectives share stays one tensor.

    Images have their channels last in memory, and so have all layers' outputs behind them: convolutional stems and
    networks then train faster on a CPU: 267 instead of 224 images/s with the deep stem, forward and backward on one
    core of an AMD EPYC.
    """
    moved: dict[int, Tensor] = {}
    for views in batch.values():
        for tensor in views.values():
            if id(tensor) not in moved:
                layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
                at_once = device.type == "cuda"  # see `Loader.batch`
                moved[id(tensor)] = tensor.to(device, non_blocking=at_once, memory_format=layout)
    return {name: {key: moved[id(tensor)] for key, tensor in views.items()} for name, views in batch.items()}
