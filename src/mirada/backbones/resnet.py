"""The residual network (He et al. 2016, arXiv:1512.03385): the convolutional yardstick of every vision paper.

The stride of a bottleneck sits in its 3x3 convolution ("v1.5"), as in the weights that are published today.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mirada.backbones.vit import DropPath
from mirada.features import Backbone, Features, Probe

__all__ = ["RESNET_SIZES", "ConvNorm", "ResNet"]

RESNET_SIZES: dict[str, dict[str, Any]] = {  # table 1
    "18": {"depths": (2, 2, 2, 2), "bottleneck": False},
    "34": {"depths": (3, 4, 6, 3), "bottleneck": False},
    "50": {"depths": (3, 4, 6, 3), "bottleneck": True},
    "101": {"depths": (3, 4, 23, 3), "bottleneck": True},
    "152": {"depths": (3, 8, 36, 3), "bottleneck": True},
}


class ConvNorm(nn.Sequential):
    """A convolution and its batch norm: (B, C, h, w) -> (B, D, ceil(h / stride), ceil(w / stride))."""

    def __init__(self, in_dim: int, dim: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        convolution = nn.Conv2d(in_dim, dim, kernel, stride, kernel // 2, groups=groups, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(dim))


def start_at_zero(layer: ConvNorm) -> ConvNorm:
    """Zero the gain of the norm that ends a branch, so that a block starts as its shortcut (arXiv:1706.02677, 5.1)."""
    nn.init.zeros_(layer[1].weight)  # type: ignore[arg-type]
    return layer


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 around a bottleneck a quarter as wide, beside a shortcut."""

    def __init__(self, in_dim: int, dim: int, stride: int, bottleneck: bool, drop_path: float) -> None:
        super().__init__()
        if bottleneck:
            self.branch = nn.Sequential(
                ConvNorm(in_dim, dim // 4, 1), nn.ReLU(),
                ConvNorm(dim // 4, dim // 4, 3, stride), nn.ReLU(),
                start_at_zero(ConvNorm(dim // 4, dim, 1)),
            )  # fmt: skip
        else:
            self.branch = nn.Sequential(
                ConvNorm(in_dim, dim, 3, stride), nn.ReLU(), start_at_zero(ConvNorm(dim, dim, 3))
            )
        same = stride == 1 and in_dim == dim
        self.shortcut = nn.Identity() if same else ConvNorm(in_dim, dim, 1, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.drop_path(self.branch(x)))


class ResNet(Backbone):
    """Residual network: a stem, then four stages of blocks, each stage twice as wide on half the grid.

    Args:
        depths: blocks per stage.
        bottleneck: blocks of three convolutions, and stages four times as wide.
        widths: channels per stage, instead of 64 doubled from stage to stage.
        stem_width: channels of the stem.
        in_channels: channels of the image.
        small_images: a stem that keeps every pixel (3x3, no max-pool), for images of about 32 pixels.
        drop_path: rate of the last block; grows linearly with depth from 0.
    """

    def __init__(
        self, depths: tuple[int, ...], bottleneck: bool, *, widths: tuple[int, ...] | None = None, stem_width: int = 64,
        in_channels: int = 3, small_images: bool = False, drop_path: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if widths is None:
            widths = tuple((256 if bottleneck else 64) * 2**stage for stage in range(len(depths)))
        self.stem_dim, self.dim = stem_width, widths[-1]
        self.stride = (1 if small_images else 4) * 2 ** (len(depths) - 1)
        self.num_layers = sum(depths) + 1
        if small_images:
            self.stem = nn.Sequential(ConvNorm(in_channels, stem_width, 3), nn.ReLU())
        else:
            self.stem = nn.Sequential(ConvNorm(in_channels, stem_width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        in_dim = self.stem_dim
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for index in range(depth):
                rate = drop_path * len(blocks) / max(1, sum(depths) - 1)
                blocks.append(Block(in_dim, width, 2 if stage > 0 and index == 0 else 1, bottleneck, rate))
                in_dim = width
        self.blocks = nn.Sequential(*blocks)

    def embed(self, images: Tensor) -> Tensor:
        return self.stem(images).permute(0, 2, 3, 1)  # type: ignore[no-any-return]

    def encode(self, patches: Tensor, *, keep: Tensor | None = None, probe: Probe | None = None) -> Features:  # noqa: ARG002
        self.refuse_keep(keep)
        x = self.blocks(patches.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return Features(x.mean((1, 2)), x, x.new_empty(x.shape[0], 0, self.dim))

    def layer_index(self, parameter: str) -> int:
        first, _, rest = parameter.partition(".")
        return int(rest.partition(".")[0]) + 1 if first == "blocks" else 0
