"""A slow copy of a network: the mean teacher (Tarvainen and Valpola 2017, arXiv:1703.01780) that students match."""

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["copy_of", "follow", "learning_norms", "momentum_at", "ramp", "without_noise"]

Module = TypeVar("Module", bound=nn.Module)


def copy_of(module: Module) -> Module:
    """A copy that no optimiser touches."""
    return deepcopy(module).requires_grad_(False)


def learning_norms(student: nn.Module) -> list[str]:
    """Names of the BatchNorms that train; those of frozen layers keep their statistics."""
    return [name for name, module in student.named_modules()
            if isinstance(module, _BatchNorm) and any(one.requires_grad for one in module.parameters())]  # fmt: skip


def without_noise(teacher: nn.Module, norms: Iterable[str]) -> None:
    """No drop path, as in evaluation; but these BatchNorms see their batch and keep their own running statistics, which
    then belong to the teacher's weights."""
    teacher.eval()
    for name in norms:
        teacher.get_submodule(name).train()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, parameter by parameter."""
    torch._foreach_lerp_(
        list(teacher.parameters()), [parameter.detach() for parameter in student.parameters()], 1 - momentum
    )


def momentum_at(progress: float, start: float) -> float:
    """A cosine from `start` to 1 (Grill et al. 2020, arXiv:2006.07733, section 3.3)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


def ramp(share: float, start: float, end: float) -> float:
    """From `start` straight to `end` while `share` goes from 0 to 1."""
    return start + min(1.0, max(0.0, share)) * (end - start)
