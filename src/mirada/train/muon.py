"""Muon: momentum whose update is orthogonalised, for the hidden matrices of a network (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982, for the scale of the update).

torch.optim.Muon takes matrices only, one at a time; here convolution kernels are flattened, and all matrices of one
shape are orthogonalised in one batched product, which matters on a CPU where each small product costs its overhead.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalise"]


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest (semi-)orthogonal matrices to (B, n, m), roughly: singular values end in about 0.7 to 1.2.

    A quintic Newton-Schulz iteration with the coefficients of Jordan et al. bfloat16 is enough for it, and slow on
    processors that emulate it.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = (x if wide else x.mT).to(matrices.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for parameters of two or more dimensions; kernels count as (out, rest).

    A group's `parts` says of how many matrices each of its parameters is a stack: 3 for joint queries, keys and values.
    A matrix's update is scaled by sqrt(max(1, rows / columns)), so that one rate serves all shapes; weight decay is
    decoupled. A kernel is first rescaled to a norm of sqrt(out) and takes `kernel_rate` times the rate: its scale means
    nothing before a BatchNorm, and at a fixed one the rate says how far it turns (Jordan 2024, arXiv:2404.00498,
    github.com/KellerJordan/cifar10-airbench). `dtype` is that of the iteration.
    """

    def __init__(
        self, parameters: Iterable[Any], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0,
        kernel_rate: float = 5.0, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "kernel_rate": kernel_rate,
            "parts": 1,
        }
        super().__init__(parameters, defaults)
        self.dtype = dtype

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[int, int, bool], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.grad.flatten(1).shape
                    key = (rows // group["parts"], columns, parameter.ndim == 4)
                    alike.setdefault(key, []).append(parameter)
            for (rows, columns, kernels), parameters in alike.items():
                self._update(parameters, (rows, columns), kernels, group)
        return loss

    def _update(
        self, parameters: list[Tensor], shape: tuple[int, int], kernels: bool, group: dict[str, Any]
    ) -> None:  # fmt: skip
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            momenta.append(state["momentum"])
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalise(
            torch.stack([update.reshape(group["parts"], *shape) for update in ahead]), dtype=self.dtype
        )
        if kernels:
            scale = group["kernel_rate"]
            for parameter in parameters:
                parameter.mul_(shape[0] ** 0.5 / parameter.norm().clamp(min=1e-7))
        else:
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        steps = [update.view_as(parameter) for update, parameter in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, steps, alpha=-group["lr"] * scale)
