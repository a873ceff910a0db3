"""RegNetY (Radosavovic et al. 2020, arXiv:2003.13678): residual networks whose every width follows from five numbers.

The large ones carry SEER, the first self-supervised models of a billion and of ten billion parameters
(arXiv:2103.01988, arXiv:2202.08360).
"""

import math
from itertools import groupby
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from mirada.backbones.resnet import ConvNorm, start_at_zero
from mirada.backbones.vit import DropPath, choose
from mirada.features import Backbone, Features, Probe

__all__ = ["REGNET_SIZES", "RegNet", "SqueezeExcite", "stages"]

Rounding = Literal["generous", "nearest"]

REGNET_SIZES: dict[str, dict[str, Any]] = {
    name: dict(zip(("w_0", "w_a", "w_m", "depth", "group_width"), row, strict=True))
    for name, row in {
        "400mf": (48, 27.89, 2.09, 16, 8),
        "800mf": (56, 38.84, 2.4, 14, 16),
        "1.6gf": (48, 20.71, 2.65, 27, 24),
        "3.2gf": (80, 42.63, 2.66, 21, 24),
        "8gf": (192, 76.82, 2.19, 17, 56),
        "16gf": (200, 106.23, 2.48, 18, 112),
        "32gf": (232, 115.89, 2.53, 20, 232),
        "64gf": (352, 147.48, 2.4, 20, 328),
        "128gf": (456, 160.83, 2.52, 27, 264),
        "256gf": (640, 230.83, 2.53, 27, 373),
        "10b": (1744, 620.83, 2.52, 27, 1010),
    }.items()
}


class Stage(NamedTuple):
    """A run of blocks of one width."""

    width: int
    depth: int
    group_width: int  # channels per group of the 3x3 convolution


def generous(width: int, group: int) -> int:
    """Whole groups as torchvision and SEER count them: halves round up, and never is more than a tenth rounded off."""
    rounded = int(width + group / 2) // group * group
    return rounded if rounded >= 0.9 * width else rounded + group


def nearest(width: int, group: int) -> int:
    """Whole groups as the paper's own models count them, which is narrower at 800 MF and 8 GF."""
    return round(width / group) * group


ROUNDINGS = {"generous": generous, "nearest": nearest}


def stages(
    w_0: int, w_a: float, w_m: float, depth: int, group_width: int, rounding: Rounding = "generous"
) -> list[Stage]:
    """The paper's quantised linear widths (section 3.3, equations 2 to 4).

    Block j should be w_0 + w_a j wide; that is rounded to the nearest w_0 w_m^s with whole s, then to a multiple of 8.
    Blocks of one width are a stage, and its width is rounded once more, to whole groups.
    """
    to_groups = choose("rounding", rounding, ROUNDINGS)
    powers = [round(math.log(1 + w_a * block / w_0, w_m)) for block in range(depth)]
    widths = [round(w_0 * w_m**power / 8) * 8 for power in powers]
    plan = []
    for width, blocks in groupby(widths):
        group = min(group_width, width)
        plan.append(Stage(to_groups(width, group), len(list(blocks)), group))
    return plan


class SqueezeExcite(nn.Module):
    """Weigh channels by what the whole image shows in them (Hu et al. 2018, arXiv:1709.01507): (B, C, h, w) -> same."""

    def __init__(self, dim: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(dim, hidden, 1), activation, nn.Conv2d(hidden, dim, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3), keepdim=True))  # type: ignore[no-any-return]


class Block(nn.Module):
    """1x1, grouped 3x3, squeeze-excite, 1x1, all of one width, beside a shortcut."""

    def __init__(self, in_dim: int, stage: Stage, stride: int, drop_path: float) -> None:
        super().__init__()
        dim = stage.width
        self.branch = nn.Sequential(
            ConvNorm(in_dim, dim, 1), nn.ReLU(),
            ConvNorm(dim, dim, 3, stride, dim // stage.group_width), nn.ReLU(),
            SqueezeExcite(dim, round(in_dim / 4), nn.ReLU()),
            start_at_zero(ConvNorm(dim, dim, 1)),
        )  # fmt: skip
        same = stride == 1 and in_dim == dim
        self.shortcut = nn.Identity() if same else ConvNorm(in_dim, dim, 1, stride)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.drop_path(self.branch(x)))


class RegNet(Backbone):
    """RegNetY: a stem of one convolution, then stages that each halve the grid.

    Args:
        w_0, w_a, w_m, depth, group_width: initial width, slope, quantisation step, number of blocks and channels per
            group, from which `stages` makes the plan.
        rounding: of widths to whole groups: "generous" as torchvision and SEER do, "nearest" as the paper's own models.
        plan: width, number of blocks and channels per group of each stage, instead of those that `stages` makes.
        stem_width: channels of the stem.
        in_channels: channels of the image.
        drop_path: rate of the last block; grows linearly with depth from 0.
    """

    def __init__(
        self, w_0: int, w_a: float, w_m: float, depth: int, group_width: int, *,
        rounding: Rounding = "generous", plan: tuple[tuple[int, int, int], ...] | None = None, stem_width: int = 32,
        in_channels: int = 3, drop_path: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        made = (
            stages(w_0, w_a, w_m, depth, group_width, rounding) if plan is None else [Stage(*stage) for stage in plan]
        )
        depth = sum(stage.depth for stage in made)
        self.stem_dim, self.dim = stem_width, made[-1].width
        self.stride = 2 ** (len(made) + 1)
        self.num_layers = depth + 1
        self.stem = nn.Sequential(ConvNorm(in_channels, stem_width, 3, 2), nn.ReLU())
        blocks: list[nn.Module] = []
        in_dim = self.stem_dim
        for stage in made:
            for index in range(stage.depth):
                rate = drop_path * len(blocks) / max(1, depth - 1)
                blocks.append(Block(in_dim, stage, 2 if index == 0 else 1, rate))
                in_dim = stage.width
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
