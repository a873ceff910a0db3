"""CoAtNet (Dai et al. 2021, arXiv:2106.04803): convolutions on fine grids, relative attention on coarse ones.

Reads top to bottom: convolution block, relative attention, transformer block, model. As the paper has it, every block
normalises first, and the first block of a stage halves the grid in both its branch and its shortcut (appendix A.1).

The authors published no weights. Those that exist are timm's, of networks that depart from the paper here and there:
`VARIANTS` says where.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.backbones.attention import attend
from mirada.backbones.regnet import SqueezeExcite
from mirada.backbones.vit import DropPath, Inside, LayerScale, choose, feed_forward
from mirada.errors import MiradaError
from mirada.features import Backbone, Features, Layer, Probe

__all__ = ["COATNET_SIZES", "VARIANTS", "CoAtNet", "Variant"]

COATNET_SIZES: dict[str, dict[str, Any]] = {  # table 3; widths of S0 to S4, depths of S1 to S4
    "0": {"widths": (64, 96, 192, 384, 768), "depths": (2, 3, 5, 2)},
    "1": {"widths": (64, 96, 192, 384, 768), "depths": (2, 6, 14, 2)},
    "2": {"widths": (128, 128, 256, 512, 1024), "depths": (2, 6, 14, 2)},
    "3": {"widths": (192, 192, 384, 768, 1536), "depths": (2, 6, 14, 2)},
    "4": {"widths": (192, 192, 384, 768, 1536), "depths": (2, 12, 28, 2)},
}
HEAD_DIM = 32
EXPANSION = 4
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "silu": nn.SiLU, "relu": nn.ReLU}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": partial(F.max_pool2d, kernel_size=2, ceil_mode=True),  # an odd border pools over what is there
    "average": partial(F.avg_pool2d, kernel_size=2, ceil_mode=True),
    "overlapping max": partial(F.max_pool2d, kernel_size=3, stride=2, padding=1),
}


class Variant(NamedTuple):
    """The choices in which networks of this kind differ; the paper's are the defaults."""

    halving: Literal["expansion", "depthwise", "pool"] = "expansion"  # MBConv's stride: in its 1x1, 3x3, or before both
    pool: Literal["max", "average", "overlapping max"] = "max"  # of shortcuts and of attention's input
    activation: Literal["gelu", "silu"] = "gelu"  # in the stem and in MBConv
    norm_activation: bool = False  # whether MBConv's first norm is followed by the activation
    inward: bool = False  # inner widths follow what enters: MBConv's and attention's; half the stem's in the stem
    gate: Literal["gelu", "silu", "relu"] = "gelu"  # activation in squeeze-excite
    gate_early: bool = False  # squeeze-excite right after the 3x3 instead of after its norm and activation
    squeeze: int = 16  # MBConv's inner width over squeeze-excite's
    bias: bool = True  # in the last 1x1 of MBConv and in its shortcut
    attention_bias: bool = True  # in the shortcut beside attention
    layer_scale: float | None = None  # initial gain of a transformer block's branches; None: no gain
    norm_pooled: bool = False  # the final norm comes after pooling, and `patches` are not normalised
    resample: Literal["bicubic", "geometric"] = "bicubic"  # of the relative-bias tables for other image sizes
    bias_width: int | None = None  # hidden width of the network that stands in for the tables; None: tables


PAPER = Variant()
TIMM = Variant(halving="depthwise", pool="average", gate="silu", norm_pooled=True, resample="geometric")
RW = Variant("depthwise", "average", "silu", inward=True, gate="silu", squeeze=4, bias=False, resample="geometric")
VARIANTS: dict[str, Variant] = {
    "paper": PAPER,
    "timm": TIMM,  # coatnet_0_224 and on
    "pico_rw": RW._replace(bias=True),  # and what follows: coatnet_pico_rw_224 and so on
    "nano_rw": RW._replace(bias=True, halving="pool"),
    "0_rw": RW._replace(halving="pool", norm_activation=True, gate="relu", gate_early=True, attention_bias=False),
    "1_rw": RW._replace(norm_activation=True, gate="relu", gate_early=True, attention_bias=False),
    "2_rw": RW._replace(norm_activation=True),
    "3_rw": RW._replace(norm_activation=True, layer_scale=1e-6),
    "rmlp_nano_rw": RW._replace(bias=True, bias_width=384),
    "rmlp_0_rw": RW._replace(norm_activation=True, gate="relu", bias_width=512),
    "rmlp_1_rw": RW._replace(
        halving="pool", pool="overlapping max", norm_activation=True, gate="relu", gate_early=True,
        attention_bias=False, bias_width=384,
    ),
    "rmlp_1_rw2": RW._replace(norm_activation=True, gate="relu", bias_width=512),
    "rmlp_2_rw": RW._replace(norm_activation=True, layer_scale=1e-6, bias_width=512),
    "rmlp_3_rw": RW._replace(norm_activation=True, layer_scale=1e-6, bias_width=512),
}  # fmt: skip


def halve(x: Tensor, pool: str) -> Tensor:
    """Pool (B, C, h, w) -> (B, C, ceil(h / 2), ceil(w / 2))."""
    return POOLS[pool](x)


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze-excite, (B, C, h, w) -> (B, D, h', w'). The paper's stride sits in the first 1x1
    convolution (equation 5)."""

    def __init__(self, in_dim: int, dim: int, downsample: bool, drop_path: float, variant: Variant = PAPER) -> None:
        super().__init__()
        hidden = EXPANSION * (in_dim if variant.inward else dim)
        strides = {place: 2 if downsample and variant.halving == place else 1 for place in ("expansion", "depthwise")}
        self.downsample, self.pool = downsample, variant.pool
        self.shortcut = nn.Conv2d(in_dim, dim, 1, bias=variant.bias) if in_dim != dim else nn.Identity()
        activation = ACTIVATIONS[variant.activation]
        normalise = [nn.BatchNorm2d(hidden), activation()]
        gate = SqueezeExcite(hidden, hidden // variant.squeeze, ACTIVATIONS[variant.gate]())
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_dim),
            *([activation()] if variant.norm_activation else []),
            *([nn.AvgPool2d(2, ceil_mode=True)] if downsample and variant.halving == "pool" else []),
            nn.Conv2d(in_dim, hidden, 1, strides["expansion"], bias=False), nn.BatchNorm2d(hidden), activation(),
            nn.Conv2d(hidden, hidden, 3, strides["depthwise"], 1, groups=hidden, bias=False),
            *([gate, *normalise] if variant.gate_early else [*normalise, gate]),
            nn.Conv2d(hidden, dim, 1, bias=variant.bias),
        )  # fmt: skip
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = halve(x, self.pool) if self.downsample else x
        return self.shortcut(shortcut) + self.drop_path(self.branch(x))  # type: ignore[no-any-return]


class RelativeAttention(nn.Module):
    """Attention whose scores also get a learned number per head and per offset of key from query (equation 3)."""

    def __init__(self, in_dim: int, dim: int, side: int, variant: Variant = PAPER) -> None:
        super().__init__()
        inner = in_dim if variant.inward else dim
        self.num_heads, self.resample = inner // HEAD_DIM, variant.resample
        self.qkv = nn.Linear(in_dim, 3 * inner)
        self.proj = nn.Linear(inner, dim)
        self.table = self.network = None
        if variant.bias_width is None:
            self.table = nn.Parameter(torch.empty(self.num_heads, 2 * side - 1, 2 * side - 1))
        else:
            hidden = variant.bias_width
            self.network = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, self.num_heads))

    def offsets(self, shape: tuple[int, int]) -> Tensor:
        """The number for each offset, (heads, 2 h - 1, 2 w - 1), offset zero in the centre: the table, resampled for
        another grid, or what a small network makes of the offsets' logarithms (as in Swin V2, arXiv:2111.09883)."""
        table: Tensor | None = self.table
        if table is None:
            parameter = next(self.network.parameters())  # type: ignore[union-attr]  # one of the two is there
            down, across = (torch.arange(length // 2, -(length // 2) - 1, -1).to(parameter) for length in shape)
            apart = torch.stack(torch.meshgrid(down, across, indexing="ij"), -1)  # of query from key
            return self.network(apart.sign() * apart.abs().log1p()).permute(2, 0, 1)  # type: ignore[misc, no-any-return]
        if table.shape[1:] == shape:
            return table
        if self.resample == "geometric":
            down, across = (geometric_weights(*sizes).to(table) for sizes in zip(table.shape[1:], shape, strict=True))
            return down @ table @ across.T
        return F.interpolate(table[None].float(), shape, mode="bicubic")[0]

    def bias(self, grid: tuple[int, int]) -> Tensor:
        """What is added to the scores, (heads, h*w, h*w): [:, i, j] = offsets[:, row of j - row of i + h - 1, ...]."""
        rows, columns = grid
        windows = self.offsets((2 * rows - 1, 2 * columns - 1)).unfold(1, rows, 1).unfold(2, columns, 1)
        return windows.flip(1, 2).flatten(3).flatten(1, 2)  # from (heads, h, w, h, w)

    def forward(self, x: Tensor) -> tuple[Tensor, Inside, Tensor]:
        """(B, h, w, C) to its output (B, h, w, D), what it was made from, and the bias (heads, h*w, h*w)."""
        grid = (x.shape[1], x.shape[2])
        query, key, value = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias(grid).to(query.dtype)
        attended = attend(query, key, value, bias)
        return self.proj(attended.transpose(1, 2).flatten(2)).unflatten(1, grid), (query, key, value, attended), bias


def geometric_weights(before: int, after: int) -> Tensor:
    """How one axis of a relative-bias table of `before` offsets is resampled to `after`, float32 (after, before).

    The old offsets are spread over the new ones in growing steps 1, 1 + q, 1 + q + q^2, ..., so that those of close
    neighbours stay where they are; between them it is linear, and beyond the last one constant. BEiT's way (Bao et al.
    2021, arXiv:2106.08254; its code), which timm follows; q by bisection in the same interval.
    """
    if before == 1:
        return torch.ones(after, 1)
    far, wanted = before // 2, after // 2
    low, high = 1.01, 1.5
    q = low
    while high - low > 1e-6:
        q = (low + high) / 2
        low, high = (low, q) if (1 - q**far) / (1 - q) > wanted else (q, high)
    steps = [sum(q**power for power in range(step)) for step in range(1, far + 1)]
    old = torch.tensor([-step for step in reversed(steps)] + [0.0] + steps)
    new = torch.arange(-wanted, wanted + 1).clamp(old[0], old[-1])
    right = torch.bucketize(new, old).clamp(1, before - 1)
    share = (new - old[right - 1]) / (old[right] - old[right - 1])
    weights = torch.zeros(after, before)
    weights.scatter_(1, right[:, None], share[:, None])
    return weights.scatter_(1, right[:, None] - 1, 1 - share[:, None])


class TransformerBlock(nn.Module):
    """Relative attention, then feed-forward, (B, h, w, C) -> (B, h', w', D), and what a probe wants to see of it."""

    def __init__(
        self, in_dim: int, dim: int, side: int, downsample: bool, drop_path: float, variant: Variant = PAPER
    ) -> None:
        super().__init__()
        self.downsample, self.pool = downsample, variant.pool
        self.shortcut = nn.Linear(in_dim, dim, variant.attention_bias) if in_dim != dim else nn.Identity()
        self.norm1 = nn.LayerNorm(in_dim, 1e-6)
        self.attention = RelativeAttention(in_dim, dim, side, variant)
        self.scale1 = nn.Identity() if variant.layer_scale is None else LayerScale(dim, variant.layer_scale)
        self.norm2 = nn.LayerNorm(dim, 1e-6)
        self.feed_forward = feed_forward(dim, EXPANSION * dim, "gelu")
        self.scale2 = nn.Identity() if variant.layer_scale is None else LayerScale(dim, variant.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, Inside, Tensor]:
        normed = self.norm1(x)
        if self.downsample:
            x, normed = (halve(each.permute(0, 3, 1, 2), self.pool).permute(0, 2, 3, 1) for each in (x, normed))
        attended, inside, bias = self.attention(normed)
        x = self.shortcut(x) + self.drop_path(self.scale1(attended))
        x = x + self.drop_path(self.scale2(self.feed_forward(self.norm2(x))))
        return x, inside, bias


class CoAtNet(Backbone):
    """CoAtNet: two convolutions (S0), two stages of MBConv (S1, S2), two of transformer blocks (S3, S4). Takes images
    of any size.

    Args:
        widths: channels of S0 to S4; those of S3 and S4 divide by 32, the width of a head.
        depths: blocks of S1 to S4.
        image_size: the size whose grids the relative-bias tables have; other sizes, also not square, interpolate them.
        in_channels: channels of the image.
        variant: a name in `VARIANTS`: "paper", or one of timm's, which have weights.
        drop_path: rate of the last block; grows linearly with depth from 0.
    """

    def __init__(
        self, widths: tuple[int, ...], depths: tuple[int, ...], *, image_size: int = 224, in_channels: int = 3,
        variant: str = "paper", drop_path: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        chosen: Variant = choose("variant", variant, VARIANTS)
        if len(widths) != 5 or len(depths) != 4 or any(width % HEAD_DIM for width in widths[3:]):
            raise MiradaError(
                f"A CoAtNet has five widths and four depths, and heads of {HEAD_DIM} channels: the last two of widths "
                f"{widths} must divide by {HEAD_DIM}, and depths {depths} must be four numbers."
            )
        self.stem_dim, self.dim = widths[0], widths[-1]
        self.stride = 32
        self.num_layers = sum(depths) + 1
        self.norm_pooled = chosen.norm_pooled
        inner = self.stem_dim // 2 if chosen.inward else self.stem_dim
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, inner, 3, 2, 1, bias=False), nn.BatchNorm2d(inner), ACTIVATIONS[chosen.activation](),
            nn.Conv2d(inner, self.stem_dim, 3, padding=1, bias=False),
        )  # fmt: skip
        convolutions: list[nn.Module] = []
        transformers: list[nn.Module] = []
        for stage, (in_dim, dim, depth) in enumerate(zip(widths, widths[1:], depths, strict=False), start=1):
            side = -(-image_size // 2 ** (stage + 1))
            for index in range(depth):
                rate = drop_path * (len(convolutions) + len(transformers)) / max(1, sum(depths) - 1)
                before, first = (in_dim, True) if index == 0 else (dim, False)
                if stage <= 2:
                    convolutions.append(MBConv(before, dim, first, rate, chosen))
                else:
                    transformers.append(TransformerBlock(before, dim, side, first, rate, chosen))
        self.convolutions = nn.Sequential(*convolutions)
        self.transformers = nn.ModuleList(transformers)
        self.norm = nn.LayerNorm(self.dim, 1e-6)
        self.initialise()

    def initialise(self) -> None:
        """Truncated normals of standard deviation 0.02 for matrices and tables, He's normal for convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, RelativeAttention) and module.table is not None:
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
            x, (query, key, value, attended), bias = block(x)
            if probe is not None:
                grid = (x.shape[1], x.shape[2])
                tokens = x.flatten(1, 2)
                x = tokens.unflatten(1, grid)  # so that what follows has a gradient by the tokens that are seen
                trace.append(probe(Layer(index, tokens, query, key, value, grid, 0, bias, attended)))
        x = x if self.norm_pooled else self.norm(x)
        pooled = x.mean((1, 2))
        pooled = self.norm(pooled) if self.norm_pooled else pooled
        return Features(pooled, x, x.new_empty(x.shape[0], 0, self.dim), tuple(trace))

    def layer_index(self, parameter: str) -> int:
        first, _, rest = parameter.partition(".")
        if first in ("convolutions", "transformers"):
            before = len(self.convolutions) if first == "transformers" else 0
            return before + int(rest.partition(".")[0]) + 1
        return self.num_layers if first == "norm" else 0
