"""Convolutional stems for a ViT: overlapping tokenisers that give small data sets the prior a plain ViT lacks."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.errors import MiradaError

__all__ = ["ConvolutionalStem", "DeepStem"]


class ConvolutionalStem(nn.Sequential):
    """The compact convolutional tokeniser (Hassani et al. 2021, arXiv:2104.05704, section 3.3): 3x3 convolutions, each
    followed by a ReLU and a 3x3 max-pool of stride 2, until one token stands for `patch_size` pixels.

    It overlaps and shares weights, which is the prior that small data sets of small images lack in a plain ViT.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int, width: int = 64) -> None:
        steps = patch_size.bit_length() - 1
        if patch_size != 2**steps or steps == 0:
            raise MiradaError(
                f"A convolutional stem halves the image step by step, so its patch size must be 2, 4, 8 or 16, "
                f"not {patch_size}."
            )
        channels = [in_channels] + [width] * (steps - 1) + [dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight)
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        super().__init__(*layers)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return patches.permute(0, 2, 3, 1)


class DeepStem(nn.Module):
    """A tokeniser with a prior of its own, for training from scratch in minutes: fixed 2x2 whitening filters, then for
    each halving of the image a 3x3 convolution with max-pooling and a residual 3x3 convolution, and a linear layer.

    Whitening filters are the principal components of 2x2 patches, scaled to unit variance, and their negatives, set
    once by `whiten` from training images (Jordan 2024, arXiv:2404.00498, section 3.1). Convolutions start as identity.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int, width: int = 64) -> None:
        super().__init__()
        steps = patch_size.bit_length() - 1
        if patch_size != 2**steps or steps == 0:
            raise MiradaError(
                f"A deep stem halves the image step by step: its patch size must be 2, 4, 8 or 16, not {patch_size}."
            )
        patch = in_channels * 4
        self.register_buffer("whitening", torch.cat([torch.eye(patch), -torch.eye(patch)]).view(-1, in_channels, 2, 2))
        channels = [2 * patch, *(min(width * 2**step, 256) for step in range(steps))]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [ConvolutionUnit(before, after, halve=True), ConvolutionUnit(after, after)]
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(channels[-1], dim)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Fit the first layer to normalised images (B, C, height, width)."""
        patches = F.unfold(images.float(), 2, stride=2).transpose(1, 2).flatten(0, 1)  # (B * places, 4 C)
        variance, components = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (components / (variance + 5e-4).sqrt()).T.flip(0)
        whitening = self.get_buffer("whitening")
        whitening.copy_(torch.cat([filters, -filters]).view_as(whitening))

    def forward(self, images: Tensor) -> Tensor:
        whitened = F.conv2d(F.pad(images, (0, 1, 0, 1)), self.get_buffer("whitening"))
        patches: Tensor = self.layers(F.gelu(whitened))
        return self.project(patches.permute(0, 2, 3, 1))  # type: ignore[no-any-return]


class ConvolutionUnit(nn.Module):
    """3x3 convolution, max-pooling where it halves, BatchNorm, GELU; a residual around it where it does not halve."""

    def __init__(self, before: int, after: int, *, halve: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        nn.init.dirac_(self.convolution.weight[:before])
        self.norm = nn.BatchNorm2d(after)
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        if self.halve:
            return F.gelu(self.norm(F.max_pool2d(y, 2)))
        return x + F.gelu(self.norm(y))
