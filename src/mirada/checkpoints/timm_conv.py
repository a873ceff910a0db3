"""timm's convolutional and hybrid families: coatnet_*, resnet*, regnety_*.

As in timm 1.0.31. Depths and widths come from the shapes, the rest from the architecture's name. timm takes CoAtNets to
another image size as BEiT does (`resample="geometric"`); the other two have no positions.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from mirada.backbones.coatnet import COATNET_SIZES, HEAD_DIM, VARIANTS, Variant
from mirada.checkpoints.conv import UNCOUNTED, Layout, blocks, length, numbered, regnet, resnet
from mirada.checkpoints.pixels import from_timm
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import How, Row, Shapes, Table, then
from mirada.errors import MiradaError
from mirada.language import call, format_call
from mirada.model import Design, Projection

__all__ = ["REGNET", "RESNET", "plan"]

RESNET = Layout(  # torchvision's names too
    stem=("conv1", "bn1"),
    block=r"layer(\d+)\.(\d+)",
    parts={
        "branch.0.0": "conv1", "branch.0.1": "bn1", "branch.2.0": "conv2", "branch.2.1": "bn2", "branch.4.0": "conv3",
        "branch.4.1": "bn3", "shortcut.0": "downsample.0", "shortcut.1": "downsample.1",
    },
    head="fc",
)  # fmt: skip
REGNET = Layout(
    stem=("stem.conv", "stem.bn"),
    block=r"s(\d+)\.b(\d+)",
    parts={
        "branch.0.0": "conv1.conv", "branch.0.1": "conv1.bn", "branch.2.0": "conv2.conv", "branch.2.1": "conv2.bn",
        "branch.4.gate.0": "se.fc1", "branch.4.gate.2": "se.fc2", "branch.5.0": "conv3.conv", "branch.5.1": "conv3.bn",
        "shortcut.0": "downsample.conv", "shortcut.1": "downsample.bn",
    },
    head="head.fc",
)  # fmt: skip

# What a model may have been made with, because it shows in the shapes or only matters in training.
ARGUMENTS = {"num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate", "global_pool", "zero_init_last"}
Reader = Callable[[str, Shapes], tuple[str, Table]]


def plan(architecture: str, config: dict[str, Any] | None, shapes: Shapes) -> Plan:
    """The plan for a timm model of one of these families.

    Args:
        architecture: timm's name without the tag.
        config: its config.json, or None where only weights are given: then the family's usual preprocessing is assumed.
        shapes: of the tensors in its file.
    """
    read, head, usual, arguments = _family(architecture)
    config = config or {}
    made_with = config.get("model_args") or {}
    if unknown := sorted(made_with.keys() - ARGUMENTS - arguments):
        raise MiradaError(
            f"timm's {architecture} was made with {', '.join(unknown)}, which Mirada does not know: it would be loaded "
            "as another network."
        )
    pool = made_with.get("global_pool") or config.get("global_pool") or "avg"
    if pool != "avg":
        raise MiradaError(f"timm's {architecture} was made with global_pool={pool!r}: Mirada has 'avg' for it only.")
    name, table = read(architecture, shapes)
    named = re.search(r"_(\d{3})$", architecture) if "coatnet" in architecture else None
    side = call(name)[1].get("image_size") or (int(named[1]) if named else 224)
    usual = {"input_size": (3, side, side), **usual}
    pixels = {key: value for key, value in (config.get("pretrained_cfg") or {}).items() if value}
    projected = "head.pre_logits.fc.weight" in shapes
    return Plan(
        Design(
            architecture=name,
            preprocess=from_timm(usual | pixels),
            classes=_classes(config, shapes, head),
            head_input="projected" if projected else "pooled",
            projection=Projection(shapes["head.pre_logits.fc.weight"][0], bias=True, tanh=True) if projected else None,
        ),
        table,
    )


def _family(architecture: str) -> tuple[Reader, str, dict[str, Any], set[str]]:
    """How to read it, its classifier, its usual preprocessing, and what else it may have been made with."""
    if re.fullmatch(r"coatnet_.*|test_coatnet", architecture):
        half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 0.95}
        return coatnet, "head.fc", half, {"embed_dim", "depths", "stem_width", "head_hidden_size"}
    if re.fullmatch(r"resnet(18|26|34|50|101|152|200)", architecture):
        return lambda what, shapes: resnet(shapes, RESNET, what), "fc", {"crop_pct": 0.95}, {"layers", "channels"}
    if re.fullmatch(r"regnety_\d+(_tv)?", architecture):
        numbers = {"depth", "w0", "wa", "wm", "group_size", "group_min_ratio", "stem_width"}
        return lambda what, shapes: regnet(shapes, REGNET, what), "head.fc", {"crop_pct": 0.95}, numbers
    raise MiradaError(
        f"timm's {architecture} is another network than those that Mirada has: of these families it loads coatnet_*, "
        "resnet18 to resnet200 with the plain stem, and regnety_*."
    )


def _classes(config: dict[str, Any], shapes: Shapes, head: str) -> tuple[str, ...] | None:
    numbers = numbered(shapes, head)
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    if numbers is None or not names:
        return numbers
    if isinstance(names, dict):
        return tuple(str(names.get(number, number)) for number in numbers)
    return tuple(map(str, names)) if len(names) == len(numbers) else numbers


# --- CoAtNet ---------------------------------------------------------------------------------------------------------


def coatnet(architecture: str, shapes: Shapes) -> tuple[str, Table]:
    """Architecture and table. timm's CoAtNets are the paper's in outline; each name is a `Variant` of its own."""
    match = re.fullmatch(r"coatnet_(\w+?)(_\d{3})?", architecture)
    kind = "nano_rw" if architecture == "test_coatnet" else match[1] if match else ""
    kind = "timm" if re.fullmatch(r"\d", kind) else kind
    if kind not in VARIANTS:
        raise MiradaError(
            f"timm's {architecture} has other blocks than Mirada's CoAtNet (batch norm in its transformer, or "
            f"convolutions among it): coatnet_0_224 to coatnet_5_224 can be loaded, and "
            f"{', '.join(f'coatnet_{name}_224' for name in VARIANTS if '_rw' in name)}."
        )
    found = blocks(shapes, r"stages\.(\d+)\.blocks\.(\d+)", architecture)
    ends = ("conv3_1x1", "conv3_1x1", "attn.proj", "attn.proj")
    widths = (length(shapes, "stem.conv2.weight", 0, architecture),
              *(length(shapes, f"{stage[0]}.{end}.weight", 0, architecture)
                for stage, end in zip(found, ends, strict=False)))  # fmt: skip
    depths = tuple(map(len, found))
    options = {"widths": widths, "depths": depths, "variant": kind}
    if VARIANTS[kind].bias_width is None:
        offsets = length(shapes, "stages.2.blocks.0.attn.rel_pos.relative_position_bias_table", 0, architecture)
        grid = (math.isqrt(offsets) + 1) // 2
        if (2 * grid - 1) ** 2 != offsets:
            raise MiradaError(f"timm's {architecture} is for images that are not square, which Mirada does not load.")
        options["image_size"] = 16 * grid
    size = next((size for size, row in COATNET_SIZES.items() if row == {"widths": widths, "depths": depths}), None)
    if size is not None:
        options = {key: value for key, value in options.items() if key not in ("widths", "depths")}
    return format_call(f"coatnet-{size or '0'}", options), coatnet_table(found, shapes, VARIANTS[kind])


def coatnet_table(found: list[list[str]], shapes: Shapes, variant: Variant) -> Table:
    """Rows for CoAtNet of a variant, with these blocks by stage."""
    rows: list[Row] = [
        ("stem.conv1.{}", "backbone.stem.0.{}"),
        ("stem.norm1.{}", "backbone.stem.1.{}"),
        ("stem.conv2.{}", "backbone.stem.3.{}"),
        ("head.norm.{}" if variant.norm_pooled else "norm.{}", "backbone.norm.{}"),
        ("head.pre_logits.fc.{}", "projection.{}"),
        ("head.fc.{}", "head.{}"),
    ]
    convolutions = [(block, block == stage[0]) for stage in found[:2] for block in stage]
    for index, (block, first) in enumerate(convolutions):
        here = f"backbone.convolutions.{index}"
        start = 1 + variant.norm_activation + (first and variant.halving == "pool")
        gate, norm = (4, 5) if variant.gate_early else (6, 4)
        rows += [
            (f"{block}.shortcut.expand.{{}}", f"{here}.shortcut.{{}}"),
            (f"{block}.pre_norm.{{}}", f"{here}.branch.0.{{}}"),
            (f"{block}.conv1_1x1.{{}}", f"{here}.branch.{start}.{{}}"),
            (f"{block}.norm1.{{}}", f"{here}.branch.{start + 1}.{{}}"),
            (f"{block}.conv2_kxk.{{}}", f"{here}.branch.{start + 3}.{{}}"),
            (f"{block}.norm2.{{}}", f"{here}.branch.{start + norm}.{{}}"),
            (f"{block}.conv3_1x1.{{}}", f"{here}.branch.{start + 7}.{{}}"),
        ]
        name = "se_early" if variant.gate_early else "se"
        rows += [(f"{block}.{name}.fc1.{{}}", f"{here}.branch.{start + gate}.gate.0.{{}}"),
                 (f"{block}.{name}.fc2.{{}}", f"{here}.branch.{start + gate}.gate.2.{{}}")]  # fmt: skip
    transformers = [(block, block == stage[0]) for stage in found[2:] for block in stage]
    for index, (block, first) in enumerate(transformers):
        here = f"backbone.transformers.{index}"
        heads = shapes.get(f"{block}.attn.qkv.weight", (0,))[0] // (3 * HEAD_DIM)
        rows += [
            (f"{block}.shortcut.expand.weight", f"{here}.shortcut.weight", POINTWISE),
            (f"{block}.shortcut.expand.bias", f"{here}.shortcut.bias"),
            (f"{block}.norm1.norm.{{}}" if first else f"{block}.norm1.{{}}", f"{here}.norm1.{{}}"),
            (f"{block}.attn.qkv.weight", f"{here}.attention.qkv.weight", then(POINTWISE, by_head(heads))),
            (f"{block}.attn.qkv.bias", f"{here}.attention.qkv.bias", by_head(heads)),
            (f"{block}.attn.rel_pos.relative_position_bias_table", f"{here}.attention.table", OFFSETS),
            (f"{block}.attn.rel_pos.mlp.fc1.{{}}", f"{here}.attention.network.0.{{}}"),
            (f"{block}.attn.rel_pos.mlp.fc2.{{}}", f"{here}.attention.network.2.{{}}"),
            (f"{block}.attn.proj.weight", f"{here}.attention.proj.weight", POINTWISE),
            (f"{block}.attn.proj.bias", f"{here}.attention.proj.bias"),
            (f"{block}.norm2.{{}}", f"{here}.norm2.{{}}"),
            (f"{block}.mlp.fc1.weight", f"{here}.feed_forward.0.weight", POINTWISE),
            (f"{block}.mlp.fc1.bias", f"{here}.feed_forward.0.bias"),
            (f"{block}.mlp.fc2.weight", f"{here}.feed_forward.2.weight", POINTWISE),
            (f"{block}.mlp.fc2.bias", f"{here}.feed_forward.2.bias"),
            (f"{block}.ls1.gamma", f"{here}.scale1.gain"),
            (f"{block}.ls2.gamma", f"{here}.scale2.gain"),
        ]
    return [*rows, *UNCOUNTED]


def by_head(heads: int) -> How:
    """There: query, key and value of the first head, then of the next. Here: all queries, all keys, all values."""

    def swap(tensor: Tensor, first: int, second: int) -> Tensor:
        return tensor.reshape(first, second, -1, *tensor.shape[1:]).transpose(0, 1).flatten(0, 2)

    return How(
        lambda tensors, _: [swap(tensor, heads, 3) for tensor in tensors],
        lambda tensors, _: [swap(tensor, 3, heads) for tensor in tensors],
    )


# There a 1x1 convolution (D, C, 1, 1), here a matrix (D, C).
POINTWISE = How(
    lambda tensors, _: [tensor.flatten(1) for tensor in tensors],
    lambda tensors, _: [tensor[:, :, None, None] for tensor in tensors],
)
# There (offsets, heads), by the offset of query from key; here (heads, rows, columns), by that of key from query.
OFFSETS = How(
    lambda tensors, shapes: [tensor.T.reshape(shape).flip(1, 2) for tensor, shape in zip(tensors, shapes, strict=True)],
    lambda tensors, _: [tensor.flip(1, 2).flatten(1).T for tensor in tensors],
)
