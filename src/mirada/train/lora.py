"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): fine-tuning that learns a small change of each matrix and
keeps the rest, for less memory of the optimiser and less forgetting."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mirada.backbones.vit import Block
from mirada.errors import Misuse

__all__ = ["add_lora", "merge_lora", "merged"]


class LowRank(nn.Module):
    """W to W + up @ down (section 4.1, with alpha equal to the rank); `up` starts at zero, so nothing changes at
    first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, into = weight.shape
        self.down = nn.Parameter(torch.empty(rank, into, device=weight.device))
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))
        nn.init.normal_(self.down, std=into**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_lora(module: nn.Module, rank: int) -> None:
    """Freeze `module`, and let every linear layer of its transformer blocks learn a change of that rank. Raises
    `Misuse` where there are no blocks."""
    module.requires_grad_(False)
    layers = [layer for block in module.modules() if isinstance(block, Block) for layer in block.modules()
              if isinstance(layer, nn.Linear)]  # fmt: skip
    if not layers:
        raise Misuse(f"A {type(module).__name__} has no transformer blocks for low-rank adaptation: leave --lora out.")
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))


def merged(module: nn.Module) -> dict[str, Tensor]:
    """Its state as `merge_lora` would leave it; the module stays as it is. (A copy of it could not be merged instead:
    PyTorch would take the changed matrices from the original, too.)"""
    state = {name: tensor for name, tensor in module.state_dict().items() if ".parametrizations." not in name}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            state[f"{name}.weight"] = layer.weight.detach()
    return state


def merge_lora(module: nn.Module) -> None:
    """Make the changed matrices plain ones again."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
