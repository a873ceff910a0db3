"""Which parameter gets which optimiser, rate and decay; and how the rate moves with progress."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from mirada.objectives import Learner
from mirada.train.muon import Muon
from mirada.train.settings import Settings

__all__ = ["build_optimisers", "choose_optimiser", "rate_at", "set_rates"]

STACKED = {"qkv": 3, "key_value": 2, "gate_and_value": 2}  # layers whose weight is several matrices, one on another


def build_optimisers(learner: Learner, settings: Settings) -> list[torch.optim.Optimizer]:
    """One optimiser, or two with Muon: it takes the matrices and kernels of the backbone and of a text tower's blocks,
    but those that read pixels (they have at most four input channels), AdamW takes the rest. The setting "auto" must
    have been chosen before, by `choose_optimiser`.

    Each group keeps its peak rate as `peak`, already scaled by layer-wise decay.
    """
    decayed = {id(module.weight) for module in learner.modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    backbone = learner.backbone
    adamw: dict[tuple[float, float], list[nn.Parameter]] = {}
    muon: dict[tuple[float, int], list[nn.Parameter]] = {}
    rate = peak_rate(settings)
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        inside = name.startswith("backbone.")
        layer = backbone.layer_index(name.removeprefix("backbone.")) if inside else backbone.num_layers
        scale = settings.layer_decay ** (backbone.num_layers - layer)
        matrix = id(parameter) in decayed
        block = inside or ".text.blocks." in name
        if settings.optimiser == "muon" and block and matrix and parameter.shape[1] > 4:
            parts = STACKED.get(name.split(".")[-2], 1)
            muon.setdefault((settings.muon_learning_rate * scale, parts), []).append(parameter)
        else:
            decay = settings.weight_decay if matrix else 0.0
            adamw.setdefault((rate * scale, decay), []).append(parameter)
    groups = [{"params": params, "lr": peak, "peak": peak, "weight_decay": decay}
              for (peak, decay), params in adamw.items()]  # fmt: skip
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=settings.betas, fused=True)]
    if muon:
        hidden = [
            {"params": params, "lr": peak, "peak": peak, "parts": parts} for (peak, parts), params in muon.items()
        ]
        dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        optimisers.append(Muon(hidden, momentum=settings.momentum, weight_decay=settings.weight_decay, dtype=dtype))
    return optimisers


def choose_optimiser(settings: Settings, trained_by: str | None) -> str:
    """What "auto" means: Muon for random weights, and for a model that Muon trained (`trained_by`); AdamW for other
    models and for LoRA. Weights are best fine-tuned by the optimiser they come from (Liu et al. 2025, arXiv:2502.16982,
    section 3.5)."""
    if settings.optimiser != "auto":
        return settings.optimiser
    return "muon" if settings.init is None or (trained_by == "muon" and not settings.lora) else "adamw"


def peak_rate(settings: Settings) -> float:
    """AdamW's peak: as set, or 0.003 beside Muon, or 0.001 scaled down linearly below a batch of 512."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    return 3e-3 if settings.optimiser == "muon" else 1e-3 * min(1.0, settings.batch / 512)


def rate_at(progress: float, settings: Settings) -> float:
    """The share of the peak rate at `progress` in [0, 1]: linear warm-up, then down to 0."""
    if progress < settings.warmup:
        return progress / settings.warmup
    rest = (progress - settings.warmup) / (1 - settings.warmup)
    return 1 - rest if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))


def set_rates(optimisers: Sequence[torch.optim.Optimizer], share: float) -> None:
    """Every group's rate becomes its peak times `share`."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
