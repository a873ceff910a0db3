"""The exponential moving average of the weights (Tarvainen and Valpola 2017, arXiv:1703.01780)."""

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Averages of a module's floating-point parameters and buffers, kept beside it.

    The decay is warmed up as min(decay, (1 + n) / (10 + n)) so that the first, random weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in _floats(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module's present values."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = _floats(module)
        torch._foreach_lerp_(list(self.values.values()), [now[name].detach() for name in self.values], 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's values and the averages; a second call puts them back."""
        for name, value in _floats(module).items():
            kept = value.detach().clone()
            value.copy_(self.values[name])
            self.values[name].copy_(kept)


def _floats(module: nn.Module) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
