"""The gradient of one update's batch, computed in parts for less memory.

Losses that are means over samples add up over the parts. Those that compare all samples with each other are done in
two passes (GradCache, Gao et al. 2021, arXiv:2101.06983): every part is represented without a gradient and all are
compared, which gives the gradient of each representation; then every part is represented again and handed its own. The
result is the gradient of the whole batch, but for layers in which samples see each other, such as BatchNorm, and for
means over some of the samples, as where labels are missing or classes are balanced: every part has the same say.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mirada.data.loader import mix_seed
from mirada.objectives import Learner

__all__ = ["gradients"]

Batch = dict[str, dict[str, Tensor]]


def gradients(
    learner: Learner, part: Callable[[int], Batch], count: int, progress: float, *, seed: int, half: bool,
    device: torch.device,
) -> dict[str, Tensor]:  # fmt: skip
    """Add the gradient of a batch to that of the learner's parameters; returns what its `forward` returns, detached.

    Args:
        part: the views of one part of the batch, the same ones each time it is asked for; parts are of one size.
        count: how many there are.
        seed: of what is random in the network, the same in both passes.
        half: whether to compute in bfloat16.
    """
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=half)
    compared: dict[str, dict[str, Tensor]] = {}
    handed: dict[str, dict[str, list[Tensor]]] = {}
    if learner.contrasts:
        seen = []
        for number in range(count):
            torch.manual_seed(mix_seed(seed, number))
            batch = part(number)
            with torch.no_grad(), autocast:
                seen.append(learner.look(batch, progress, only_to_compare=True)[0])
        whole = {name: {key: torch.cat([one[name][key] for one in seen]) for key in values}
                 for name, values in seen[0].items()}  # fmt: skip
        leaves = {name: {key: value.requires_grad_() for key, value in values.items() if value.is_floating_point()}
                  for name, values in whole.items()}  # fmt: skip
        with autocast:
            compared = learner.compare(whole, progress)
        losses = [learner.weights[name] * result["loss"].float() for name, result in compared.items()]
        torch.autograd.backward(torch.stack(losses).sum())
        sizes = [len(next(iter(next(iter(one.values())).values()))) for one in seen]
        handed = {name: {key: list(torch.split(torch.zeros_like(value) if value.grad is None else value.grad, sizes))
                         for key, value in values.items()} for name, values in leaves.items()}  # fmt: skip
    found: dict[str, dict[str, list[Tensor]]] = {}
    for number in range(count):
        torch.manual_seed(mix_seed(seed, number))
        batch = part(number)
        with autocast:
            represented, results = learner.look(batch, progress)
        shares = [learner.weights[name] * result["loss"].float() / count for name, result in results.items()]
        shares += [(represented[name][key] * gradient[number]).sum()
                   for name, values in handed.items() for key, gradient in values.items()]  # fmt: skip
        if (share := torch.stack(shares).sum()).requires_grad:  # not where all that it would reach is frozen
            torch.autograd.backward(share)
        for name, result in results.items():
            for key, value in result.items():  # a part without labels has no accuracy
                found.setdefault(name, {}).setdefault(key, []).append(value.detach().float().to(device))
    means = {name: {key: torch.stack(values).mean() for key, values in mine.items()} for name, mine in found.items()}
    with torch.no_grad():
        return {key: value.detach().float().to(device) for key, value in learner.total(means | compared).items()}
