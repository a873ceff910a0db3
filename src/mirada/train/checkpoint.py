"""What a run needs to go on as if it had never stopped, in one safetensors file: nothing is pickled.

Data order, augmentation and drop path are functions of seed and step (see `mirada.data.loader`), so weights, averages,
optimiser state and the step number are all there is to keep.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from mirada.errors import MiradaError
from mirada.saving import save_atomically
from mirada.train.average import Average

__all__ = ["load_checkpoint", "read_state", "save_checkpoint"]


def save_checkpoint(
    path: Path, learner: nn.Module, optimisers: list[torch.optim.Optimizer], average: Average | None,
    state: dict[str, Any],
) -> None:  # fmt: skip
    """Save everything of a step; `state` is small and becomes JSON."""
    tensors = {f"learner.{name}": tensor for name, tensor in learner.state_dict().items()}
    for number, optimiser in enumerate(optimisers):
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{index}.{key}": value for key, value in values.items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.values.items()}
        state = state | {"average_updates": average.updates}
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(path, plain, {"state": json.dumps(state)})


def read_state(path: Path) -> dict[str, Any]:
    """The `state` that was saved, before anything is put back."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})["state"])
    except (OSError, LookupError, ValueError, safetensors.SafetensorError) as error:
        raise _unusable(path, error) from error
    return state


def load_checkpoint(
    path: Path, learner: nn.Module, optimisers: list[torch.optim.Optimizer], average: Average | None
) -> dict[str, Any]:
    """Put everything back, exactly, and return `state`."""
    state = read_state(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        learner.load_state_dict(_under("learner.", tensors))
        for number, optimiser in enumerate(optimisers):
            _load_optimiser(optimiser, _under(f"optimiser.{number}.", tensors))
        if average is not None:
            average.updates = state["average_updates"]
            for name, value in _under("average.", tensors).items():
                average.values[name].copy_(value)
    except (OSError, LookupError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise _unusable(path, error) from error
    return state


def _unusable(path: Path, error: Exception) -> MiradaError:
    return MiradaError(
        f"Cannot resume from {path} ({' '.join(str(error).split())[:200]}): "
        "it does not belong to this run's settings, or is damaged; start a new run with another --out."
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Every moment gets its parameter's memory layout: the fused AdamW walks both in memory order, without a check, and
    files are contiguous where kernels may be channels last."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        if key != "step" and tensor.shape != parameter.shape:
            raise ValueError(f"its optimiser state {name} is another parameter's")
        if tensor.shape == parameter.shape:
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
