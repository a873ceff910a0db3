"""BatchNorm over the images of all processes, as if one had them all (Ioffe and Szegedy 2015, arXiv:1502.03167).

torch.nn.SyncBatchNorm does so on GPUs only.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mirada.processes import processes, summed_with_gradient

__all__ = ["SynchronisedBatchNorm", "synchronise"]


class SynchronisedBatchNorm(_BatchNorm):
    """Takes the place of BatchNorm1d and BatchNorm2d, with the same parameters and buffers."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any (B, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or processes() == 1:
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        wide = x if x.dtype is torch.float64 else x.float()
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = summed_with_gradient(wide.new_tensor(wide.numel() / wide.shape[1]))
        mean = summed_with_gradient(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = summed_with_gradient(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach(), float(count))
        result = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(1.0, count - 1), share)


def synchronise(module: nn.Module) -> None:
    """Replace every BatchNorm inside `module`, where there is more than one process."""
    if processes() == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            same = SynchronisedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            same.weight, same.bias = child.weight, child.bias
            same.running_mean, same.running_var = child.running_mean, child.running_var
            same.num_batches_tracked = child.num_batches_tracked
            same.train(child.training)
            setattr(module, name, same)
        else:
            synchronise(child)
