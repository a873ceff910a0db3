"""CoAtNet (Dai et al. 2021, arXiv:2106.04803): convolutions on fine grids, relative attention on coarse ones.

Reads top to bottom: convolution block, relative attention, transformer block, model. As the paper has it, every block
normalises first, and the first block of a stage halves the grid in both its branch and its shortcut (appendix A.1).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.backbones.attention import attend
from mirada.backbones.regnet import SqueezeExcite
from mirada.backbones.vit import QKV, DropPath, feed_forward
from mirada.errors import MiradaError
from mirada.features import Backbone, Features, Layer, Probe

__all__ = ["COATNET_SIZES", "CoAtNet"]

COATNET_SIZES: dict[str, dict[str, Any]] = {  # table 3; widths of S0 to S4, depths of S1 to S4
    "0": {"widths": (64, 96, 192, 384, 768), "depths": (2, 3, 5, 2)},
    "1": {"widths": (64, 96, 192, 384, 768), "depths": (2, 6, 14, 2)},
    "2": {"widths": (128, 128, 256, 512, 1024), "depths": (2, 6, 14, 2)},
    "3": {"widths": (192, 192, 384, 768, 1536), "depths": (2, 6, 14, 2)},
    "4": {"widths": (192, 192, 384, 768, 1536), "depths": (2, 12, 28, 2)},
}
HEAD_DIM = 32
EXPANSION = 4


def halve(x: Tensor) -> Tensor:
    """Max-pool (B, C, h, w) -> (B, C, ceil(h / 2), ceil(w / 2)); an odd border pools over what is there."""
    return F.max_pool2d(x, 2, ceil_mode=True)


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze-excite, (B, C, h, w) -> (B, D, h', w'). The stride sits in its first 1x1
    convolution (equation 5)."""

    def __init__(self, in_dim: int, dim: int, downsample: bool, drop_path: float) -> None:
        super().__init__()
        hidden = EXPANSION * dim
        self.downsample = downsample
        self.shortcut = nn.Conv2d(in_dim, dim, 1) if in_dim != dim else nn.Identity()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_dim),
            nn.Conv2d(in_dim, hidden, 1, 2 if downsample else 1, bias=False), nn.BatchNorm2d(hidden), nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.GELU(),
            SqueezeExcite(hidden, dim // 4, nn.GELU()),
            nn.Conv2d(hidden, dim, 1),
        )  # fmt: skip
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = halve(x) if self.downsample else x
        return self.shortcut(shortcut) + self.drop_path(self.branch(x))  # type: ignore[no-any-return]


class RelativeAttention(nn.Module):
    """Attention whose scores also get a learned number per head and per offset of key from query (equation 3)."""

    def __init__(self, in_dim: int, dim: int, side: int) -> None:
        super().__init__()
        self.num_heads = dim // HEAD_DIM
        self.qkv = nn.Linear(in_dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.empty(self.num_heads, 2 * side - 1, 2 * side - 1))

    def bias(self, grid: tuple[int, int]) -> Tensor:
        """What is added to the scores, (heads, h*w, h*w): bias[:, i, j] = table[:, row of j - row of i + h - 1, ...].

        The table is resampled bicubically for another grid; offset zero stays in its centre.
        """
        rows, columns = grid
        table: Tensor = self.table
        shape = (2 * rows - 1, 2 * columns - 1)
        if table.shape[1:] != shape:
            table = F.interpolate(table[None].float(), shape, mode="bicubic")[0]
        windows = table.unfold(1, rows, 1).unfold(2, columns, 1)  # (heads, h, w, h, w)
        return windows.flip(1, 2).flatten(3).flatten(1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, QKV, Tensor]:
        """(B, h, w, C) to its output (B, h, w, D), what it was made from, and the bias (heads, h*w, h*w)."""
        grid = (x.shape[1], x.shape[2])
        query, key, value = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias(grid).to(query.dtype)
        attended = attend(query, key, value, bias)
        return self.proj(attended.transpose(1, 2).flatten(2)).unflatten(1, grid), (query, key, value), bias


class TransformerBlock(nn.Module):
    """Relative attention, then feed-forward, (B, h, w, C) -> (B, h', w', D), and what a probe wants to see of it."""

    def __init__(self, in_dim: int, dim: int, side: int, downsample: bool, drop_path: float) -> None:
        super().__init__()
        self.downsample = downsample
        self.shortcut = nn.Linear(in_dim, dim) if in_dim != dim else nn.Identity()
        self.norm1 = nn.LayerNorm(in_dim, 1e-6)
        self.attention = RelativeAttention(in_dim, dim, side)
        self.norm2 = nn.LayerNorm(dim, 1e-6)
        self.feed_forward = feed_forward(dim, EXPANSION * dim, "gelu")
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, QKV, Tensor]:
        normed = self.norm1(x)
        if self.downsample:
            x, normed = (halve(each.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for each in (x, normed))
        attended, qkv, bias = self.attention(normed)
        x = self.shortcut(x) + self.drop_path(attended)
        x = x + self.drop_path(self.feed_forward(self.norm2(x)))
        return x, qkv, bias


class CoAtNet(Backbone):
    """CoAtNet: two convolutions (S0), two stages of MBConv (S1, S2), two of transformer blocks (S3, S4). Takes images
    of any size.

    Args:
        widths: channels of S0 to S4; those of S3 and S4 divide by 32, the width of a head.
        depths: blocks of S1 to S4.
        image_size: the size whose grids the relative-bias tables have; other sizes, also not square, interpolate them.
        in_channels: channels of the image.
        drop_path: rate of the last block; grows linearly with depth from 0.
    """

    def __init__(
        self, widths: tuple[int, ...], depths: tuple[int, ...], *, image_size: int = 224, in_channels: int = 3,
        drop_path: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(widths) != 5 or len(depths) != 4 or any(width % HEAD_DIM for width in widths[3:]):
            raise MiradaError(
                f"A CoAtNet has five widths and four depths, and heads of {HEAD_DIM} channels: the last two of widths "
                f"{widths} must divide by {HEAD_DIM}, and depths {depths} must be four numbers."
            )
        self.stem_dim, self.dim = widths[0], widths[-1]
        self.stride = 32
        self.num_layers = sum(depths) + 1
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, self.stem_dim, 3, 2, 1, bias=False), nn.BatchNorm2d(self.stem_dim), nn.GELU(),
            nn.Conv2d(self.stem_dim, self.stem_dim, 3, padding=1, bias=False),
        )  # fmt: skip
        convolutions: list[nn.Module] = []
        transformers: list[nn.Module] = []
        for stage, (in_dim, dim, depth) in enumerate(zip(widths, widths[1:], depths, strict=False), start=1):
            side = -(-image_size // 2 ** (stage + 1))
            for index in range(depth):
                rate = drop_path * (len(convolutions) + len(transformers)) / max(1, sum(depths) - 1)
                before, first = (in_dim, True) if index == 0 else (dim, False)
                if stage <= 2:
                    convolutions.append(MBConv(before, dim, first, rate))
                else:
                    transformers.append(TransformerBlock(before, dim, side, first, rate))
        self.convolutions = nn.Sequential(*convolutions)
        self.transformers = nn.ModuleList(transformers)
        self.norm = nn.LayerNorm(self.dim, 1e-6)
        self.initialise()

    def initialise(self) -> None:
        """Truncated normals of standard deviation 0.02 for matrices and tables, He's normal for convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, RelativeAttention):
                nn.init.trunc_normal_(module.table, std=0.02)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, images: Tensor) -> Tensor:
        return self.stem(images).permute(0, 2, 3, 1)  # type: ignore[no-any-return]

    def encode(self, patches: Tensor, *, keep: Tensor | None = None, probe: Probe | None = None) -> Features:
        self.refuse_keep(keep)
        x = self.convolutions(patches.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        trace: list[Any] = []
        for index, block in enumerate(self.transformers):
            x, (query, key, value), bias = block(x)
            if probe is not None:
                grid = (x.shape[1], x.shape[2])
                trace.append(probe(Layer(index, x.flatten(1, 2), query, key, value, grid, 0, bias)))
        x = self.norm(x)
        return Features(x.mean((1, 2)), x, x.new_empty(x.shape[0], 0, self.dim), tuple(trace))

    def layer_index(self, parameter: str) -> int:
        first, _, rest = parameter.partition(".")
        if first in ("convolutions", "transformers"):
            before = len(self.convolutions) if first == "transformers" else 0
            return before + int(rest.partition(".")[0]) + 1
        return self.num_layers if first == "norm" else 0
