"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929), with the options today's checkpoints need.

Reads top to bottom: stem, positions, attention, block, pooling, model.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirada.backbones.attention import attend
from mirada.backbones.stems import ConvolutionalStem, DeepStem
from mirada.errors import MiradaError
from mirada.features import Backbone, Features, Layer, Probe

__all__ = ["ViT"]

Pooling = Literal["class", "average", "sequence", "attention"]
Positions = Literal["learned", "sincos", "rotary", "none"]
Activation = Literal["gelu", "gelu_tanh", "quickgelu", "swiglu"]
Stem = Literal["patch", "convolutional", "deep"]
Resample = Literal["antialias", "plain", "offset", "corners", "bilinear"]
Inside = tuple[Tensor, Tensor, Tensor, Tensor]  # queries, keys, values and what came of them, each (B, heads, N, d)


class PatchStem(nn.Conv2d):
    """Cut the image into squares and project each one linearly: (B, C, height, width) -> (B, h, w, D)."""

    def __init__(self, in_channels: int, dim: int, patch_size: int, bias: bool = True) -> None:
        super().__init__(in_channels, dim, patch_size, patch_size, bias=bias)
        fan_in = in_channels * patch_size**2
        nn.init.trunc_normal_(self.weight, std=fan_in**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).permute(0, 2, 3, 1)


def sincos_positions(dim: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Fixed 2D sine-cosine positions (1, h*w, dim): a quarter of the channels each for sin x, cos x, sin y, cos y.

    As in MoCo v3 and MAE (arXiv:2104.02057, section 3; temperature 10000).
    """
    frequency = 10000 ** -(torch.arange(dim // 4, device=device, dtype=torch.float32) / (dim // 4))
    rows, columns = (torch.arange(side, device=device, dtype=torch.float32) for side in grid)
    y, x = (torch.outer(axis, frequency) for axis in (rows, columns))
    y, x = y[:, None].expand(-1, grid[1], -1), x[None].expand(grid[0], -1, -1)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1).flatten(0, 1)[None]


def resampled(table: Tensor, grid: tuple[int, int], how: Resample) -> Tensor:
    """A square table of positions (1, n*n, D) for another grid, (1, h*w, D): as the model's own code does it, because
    a model is only as good as with the positions it was measured with.

    "antialias": bicubic, as timm and open_clip do; "plain": bicubic without antialiasing, as transformers, MAE;
    "offset": that, but by a factor for a grid a tenth of a patch larger, as DINO and DINOv2; "corners": bicubic that
    keeps the corners in place, as torchvision; "bilinear": antialiased, as SigLIP 2.
    """
    side = math.isqrt(table.shape[1])
    square = table.mT.reshape(1, -1, side, side).float()
    match how:
        case "offset":
            height, width = ((length + 0.1) / side for length in grid)
            square = F.interpolate(square, scale_factor=(height, width), mode="bicubic")
        case "bilinear":
            square = F.interpolate(square, grid, mode="bilinear", antialias=True)
        case _:
            square = F.interpolate(
                square, grid, mode="bicubic", antialias=how == "antialias", align_corners=how == "corners"
            )
    return square.flatten(2).mT


def rotary_angles(head_dim: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Angles (h*w, head_dim) of axial rotary positions: coordinates in [-1, 1], periods from 1 to 100.

    Because coordinates are relative to the image's side, another image size needs no interpolation.
    As in DINOv3 (arXiv:2508.10104, section 3.2).
    """
    periods = 100.0 ** (torch.arange(head_dim // 4, device=device, dtype=torch.float32) / (head_dim // 4))
    rows, columns = (2 * (torch.arange(side, device=device) + 0.5) / side - 1 for side in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)  # (h*w, 2)
    angles = 2 * math.pi * places[:, :, None] / periods  # (h*w, 2, head_dim / 4)
    return angles.flatten(1).repeat(1, 2)


def rotate(x: Tensor, angles: Tensor, prefix: int) -> Tensor:
    """Turn the patch tokens of x (B, heads, N, d) by angles (N - prefix, d) or (B, 1, N - prefix, d)."""
    still, moving = x[:, :, :prefix], x[:, :, prefix:]
    first, second = moving.chunk(2, dim=-1)
    turned = moving * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
    return torch.cat([still, turned.to(x.dtype)], dim=2)


class Attention(nn.Module):
    """Multi-head self-attention. Returns its output (B, N, D) and the queries, keys and values it was made from, and
    what came of them before the heads were joined; of the `first` tokens only, where that is a number."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, angles: Tensor | None, prefix: int, bias: Tensor | None = None, first: int | None = None
    ) -> tuple[Tensor, Inside]:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if angles is not None:
            query, key = rotate(query, angles, prefix), rotate(key, angles, prefix)
        query, bias = query[:, :, :first], None if bias is None else bias[:, :first]
        attended = attend(query, key, value, bias)
        return self.proj(attended.transpose(1, 2).flatten(2)), (query, key, value, attended)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the approximation OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv:2002.05202, equation 6): W3 (SiLU(W1 x) * W2 x)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(dim, 2 * hidden)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)  # type: ignore[no-any-return]


def feed_forward(dim: int, hidden: int, activation: Activation) -> nn.Module:
    """The block's second half, (B, N, dim) -> (B, N, dim)."""
    if activation == "swiglu":
        return SwiGLU(dim, hidden)
    between = {"gelu": nn.GELU(), "gelu_tanh": nn.GELU("tanh"), "quickgelu": QuickGELU()}[activation]
    return nn.Sequential(nn.Linear(dim, hidden), between, nn.Linear(hidden, dim))


class LayerScale(nn.Module):
    """A learned gain per channel (Touvron et al. 2021, arXiv:2103.17239): keeps deep nets near identity at first."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): drop the whole branch of a sample while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept.to(x.dtype) / (1 - self.rate)


class Block(nn.Module):
    """Attention, then feed-forward, each with a norm before it and a residual around it. All tokens are read; `first`
    is how many of them, from the first on, are wanted."""

    def __init__(
        self, dim: int, num_heads: int, hidden: int, activation: Activation, epsilon: float,
        layer_scale: float | None = None, drop_path: float = 0.0, qkv_bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, epsilon)
        self.attention = Attention(dim, num_heads, qkv_bias)
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, epsilon)
        self.feed_forward = feed_forward(dim, hidden, activation)
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, angles: Tensor | None = None, prefix: int = 0, bias: Tensor | None = None,
        first: int | None = None,
    ) -> tuple[Tensor, Inside]:  # fmt: skip
        attended, inside = self.attention(self.norm1(x), angles, prefix, bias, first)
        x = x[:, :first] + self.drop_path(self.scale1(attended))
        x = x + self.drop_path(self.scale2(self.feed_forward(self.norm2(x))))
        return x, inside


class SequencePooling(nn.Module):
    """Weigh the tokens by a learned softmax score and add them up (arXiv:2104.05704, equation 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        weights: Tensor = self.score(tokens).softmax(1)  # (B, N, 1)
        return (weights.mT @ tokens).squeeze(1)


class AttentionPooling(nn.Module):
    """One learned query attends to all tokens, then a feed-forward layer: SigLIP's head (Zhai et al. 2022,
    arXiv:2106.04560, appendix; Lee et al. 2019, arXiv:1810.00825)."""

    def __init__(self, dim: int, num_heads: int, hidden: int, activation: Activation, epsilon: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(1, 1, dim))
        nn.init.trunc_normal_(self.query, std=dim**-0.5)
        self.project_query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, epsilon)
        self.feed_forward = feed_forward(dim, hidden, activation)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.project_query(self.query.expand(tokens.shape[0], -1, -1)).unflatten(-1, (self.num_heads, -1))
        key, value = self.key_value(tokens).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(query.transpose(1, 2), key, value)
        x = self.proj(attended.transpose(1, 2).flatten(2))
        return (x + self.feed_forward(self.norm(x)))[:, 0]  # type: ignore[no-any-return]


class ViT(Backbone):
    """Vision Transformer.

    Args:
        dim, depth, num_heads: width D, number of blocks, attention heads; `num_heads` divides `dim`.
        patch_size: pixels per side of a patch.
        image_size: the size whose grid the learned position table has; other sizes, also not square, interpolate it.
            Where it does not divide by the patch, the pixels left over at its end are not seen (SigLIP's 384 by 14).
        in_channels: channels of the image.
        mlp_ratio: hidden width of the feed-forward layer over `dim`.
        stem: "patch" (linear), "convolutional" (overlapping, for small images) or "deep" (more so, for short training).
        stem_width: channels of the first layer of a convolutional or deep stem.
        pooling: which token or mean is `Features.pooled`: "class", "average" of patches, "sequence" (softmax-weighted
            mean of patches) or "attention" (a learned query).
        registers: extra tokens without a meaning of their own (Darcet et al. 2024, arXiv:2309.16588).
        positions: "learned", "sincos" (fixed), "rotary" (in every layer) or "none".
        prefix_positions: how many of the class token and registers have a learned position too; by default the class
            token. DeiT III (arXiv:2204.07118) has none, a distilled DeiT (arXiv:2012.12877) two.
        resample: how the learned position table is brought to another grid, see `resampled`.
        activation: "gelu", "gelu_tanh" (its approximation, as SigLIP has), "quickgelu" or "swiglu".
        qkv_bias: whether queries, keys and values have biases.
        pre_norm: a LayerNorm before the first block, as CLIP has, and no bias in the linear stem.
        layer_scale: initial gain of each branch, or None for no gain.
        drop_path: rate of the last block; grows linearly with depth from 0.
        epsilon: of every LayerNorm.
    """

    drops_tokens = True

    def __init__(
        self, dim: int, depth: int, num_heads: int, patch_size: int, *, image_size: int = 224, in_channels: int = 3,
        mlp_ratio: float = 4.0, stem: Stem = "patch", stem_width: int = 64, pooling: Pooling = "class",
        registers: int = 0, positions: Positions = "learned", prefix_positions: int | None = None,
        resample: Resample = "antialias", activation: Activation = "gelu", qkv_bias: bool = True,
        pre_norm: bool = False, layer_scale: float | None = None, drop_path: float = 0.0, epsilon: float = 1e-6,
    ) -> None:  # fmt: skip
        super().__init__()
        if dim % num_heads:
            raise MiradaError(f"A width of {dim} does not split into {num_heads} heads: choose a divisor of {dim}.")
        if positions in ("sincos", "rotary") and (dim if positions == "sincos" else dim // num_heads) % 4:
            raise MiradaError(f"Positions {positions!r} need a width per head that divides by 4: change dim or heads.")
        if stem_width < 1:
            raise MiradaError(f"A stem cannot have {stem_width} channels: use 1 or more.")
        if registers < 0:
            raise MiradaError(f"There cannot be {registers} registers: use 0 or more.")
        self.dim = self.stem_dim = dim
        self.stride = patch_size
        self.num_layers = depth + 1
        self.num_heads = num_heads
        self.pooling, self.positions = pooling, positions
        hidden = round(dim * mlp_ratio)

        stems: dict[str, Callable[[int, int, int], nn.Module]] = {
            "patch": partial(PatchStem, bias=not pre_norm),
            "convolutional": partial(ConvolutionalStem, width=stem_width), "deep": partial(DeepStem, width=stem_width),
        }  # fmt: skip
        self.stem = choose("stem", stem, stems)(in_channels, dim, patch_size)
        self.prefix_tokens = int(pooling == "class") + registers
        self.prefix = nn.Parameter(torch.empty(1, self.prefix_tokens, dim)) if self.prefix_tokens else None
        side = max(1, image_size // patch_size)
        self.grid, self.image_size, self.resample = (side, side), image_size, resample
        for name, value, kind in (
            ("positions", positions, Positions), ("activation", activation, Activation),
            ("resample", resample, Resample),
        ):  # fmt: skip
            choose(name, value, dict.fromkeys(get_args(kind)))
        learned = positions == "learned"
        self.position = nn.Parameter(torch.empty(1, side * side, dim)) if learned else None
        positioned = int(pooling == "class") if prefix_positions is None else prefix_positions
        if not 0 <= positioned <= self.prefix_tokens:
            raise MiradaError(f"There are {self.prefix_tokens} tokens before the patches: {positioned} of them cannot "
                              "have positions.")  # fmt: skip
        self.class_position = nn.Parameter(torch.empty(1, positioned, dim)) if learned and positioned else None
        self.pre_norm = nn.LayerNorm(dim, epsilon) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(
                dim,
                num_heads,
                hidden,
                activation,
                epsilon,
                layer_scale,
                drop_path * index / max(1, depth - 1),
                qkv_bias,
            )
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim, epsilon)
        pools: dict[str, Callable[[], nn.Module]] = {
            "class": nn.Identity, "average": nn.Identity, "sequence": lambda: SequencePooling(dim),
            "attention": lambda: AttentionPooling(dim, num_heads, hidden, activation, epsilon),
        }  # fmt: skip
        self.pool = choose("pooling", pooling, pools)()
        self.initialise()

    def initialise(self) -> None:
        """Truncated normals of standard deviation 0.02 for matrices, tables and tokens, zeros for biases."""
        for table in (self.prefix, self.position, self.class_position):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)
        for module in [*self.blocks.modules(), *self.pool.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def prepare(self, images: Tensor) -> None:
        if isinstance(self.stem, DeepStem):
            self.stem.whiten(images)

    def embed(self, images: Tensor) -> Tensor:
        if tuple(images.shape[-2:]) != (self.image_size, self.image_size):
            self.require_multiple(images, self.stride, "patches")
        return self.stem(images)  # type: ignore[no-any-return]

    def position_table(self, grid: tuple[int, int]) -> Tensor | None:
        """What is added to the patches, (1, h*w, D); the learned table is resampled for another grid."""
        if self.positions == "sincos":
            return sincos_positions(self.dim, grid, next(self.parameters()).device)
        if self.position is None or grid == self.grid:
            return self.position
        return resampled(self.position, grid, self.resample)

    def tokens(self, patches: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """What the first block reads, (B, N, D), the angles of rotary positions, and rows and columns of the grid."""
        batch, height, width, _ = patches.shape
        grid = (height, width)
        x = patches.flatten(1, 2).to(self.norm.weight.dtype)  # under autocast the residual stream stays float32
        table = self.position_table(grid)
        if table is not None:
            x = x + table.to(x.dtype)
        angles = None
        if self.positions == "rotary":
            angles = rotary_angles(self.dim // self.num_heads, grid, x.device)
        if keep is not None:
            grid = (1, keep.shape[1])
            x = x.gather(1, keep[:, :, None].expand(-1, -1, self.dim))
            angles = None if angles is None else angles[keep][:, None]
        if self.prefix is not None:
            prefix = self.prefix.expand(batch, -1, -1)
            if self.class_position is not None:
                count = self.class_position.shape[1]
                prefix = torch.cat([prefix[:, :count] + self.class_position, prefix[:, count:]], dim=1)
            x = torch.cat([prefix.to(x.dtype), x], dim=1)
        return self.pre_norm(x), angles, grid

    def encode(self, patches: Tensor, *, keep: Tensor | None = None, probe: Probe | None = None) -> Features:
        x, angles, grid = self.tokens(patches, keep)
        trace: list[Any] = []
        for index, block in enumerate(self.blocks):
            x, (query, key, value, attended) = block(x, angles, self.prefix_tokens)
            if probe is not None:
                trace.append(probe(Layer(index, x, query, key, value, grid, self.prefix_tokens, attended=attended)))

        x = self.norm(x)
        tokens = x[:, self.prefix_tokens :]
        if self.pooling == "class":
            pooled = x[:, 0]
        elif self.pooling == "average":
            pooled = tokens.mean(1)
        else:
            pooled = self.pool(x if self.pooling == "attention" else tokens)
        return Features(pooled, tokens.unflatten(1, grid), x[:, : self.prefix_tokens], tuple(trace))

    def pooled(self, images: Tensor) -> Tensor:
        if self.pooling != "class":
            return super().pooled(images)
        x, angles, _ = self.tokens(self.embed(images))
        for index, block in enumerate(self.blocks, 1):
            x, _ = block(x, angles, self.prefix_tokens, first=1 if index == len(self.blocks) else None)
        return self.norm(x[:, 0])  # type: ignore[no-any-return]

    def layer_index(self, parameter: str) -> int:
        first, _, rest = parameter.partition(".")
        if first == "blocks":
            return int(rest.partition(".")[0]) + 1
        return self.num_layers if first in ("norm", "pool") else 0


def choose(what: str, name: str, table: dict[str, Any]) -> Any:
    """The table's entry, or an error that lists what there is."""
    if name not in table:
        raise MiradaError(f"There is no {what} {name!r}: choose one of {', '.join(table)}.")
    return table[name]
