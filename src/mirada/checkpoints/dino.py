"""The original files of DINO (arXiv:2104.14294), DINOv2 (arXiv:2304.07193, registers: arXiv:2309.16588) and DINOv3
(arXiv:2508.10104), by their torch.hub names; DINOv3's for satellite images as `NAME/sat493m`.

`dino:NAME` without a file loads the same weights as they are published on the hub in transformers' layout. DINO and
DINOv2 without registers take positions to another size by a factor for a tenth of a patch more ("offset"), DINOv2 with
registers with antialiasing and by the size; DINOv3's are relative to the image and need nothing.
"""

from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mirada.checkpoints import pixels
from mirada.checkpoints.files import Files
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import JOIN, How, Row, Shapes, Table, join
from mirada.checkpoints.timm import ROWS
from mirada.checkpoints.vit import grid_of, shape_of, vit_name
from mirada.errors import MiradaError
from mirada.model import Design
from mirada.preprocess import Preprocess

__all__ = ["NAMES", "plan", "repository"]

SIZES: dict[str, dict[str, Any]] = {
    "s": {"dim": 384, "depth": 12, "num_heads": 6},
    "splus": {"dim": 384, "depth": 12, "num_heads": 6},
    "b": {"dim": 768, "depth": 12, "num_heads": 12},
    "l": {"dim": 1024, "depth": 24, "num_heads": 16},
    "hplus": {"dim": 1280, "depth": 32, "num_heads": 20},
    "g": {"dim": 1536, "depth": 40, "num_heads": 24},
    "7b": {"dim": 4096, "depth": 40, "num_heads": 32},
}
LAYER_SCALE = 1e-5  # where training starts; a checkpoint fills its own


class Name(NamedTuple):
    """One torch.hub name: its size, patch and options, its pixels, and where the hub has the weights."""

    size: str
    patch: int
    options: dict[str, Any]
    pixels: Preprocess
    repository: str


V1 = {"resample": "offset"}
V2 = {"resample": "offset", "layer_scale": LAYER_SCALE}
V2_REGISTERS = {"resample": "antialias", "layer_scale": LAYER_SCALE, "registers": 4}
V3 = {"positions": "rotary", "layer_scale": LAYER_SCALE, "registers": 4, "epsilon": 1e-5}
V2_HUB = {"s": "small", "b": "base", "l": "large", "g": "giant"}

NAMES: dict[str, Name] = {
    **{f"dino_vit{size}{patch}": Name(size, patch, V1, pixels.DINO, f"facebook/dino-vit{size}{patch}")
       for size in "sb" for patch in (16, 8)},
    **{f"dinov2_vit{size}14": Name(size, 14, V2, pixels.DINOV2, f"facebook/dinov2-{name}")
       for size, name in V2_HUB.items()},
    **{f"dinov2_vit{size}14_reg": Name(size, 14, V2_REGISTERS, pixels.DINOV2,
                                       f"facebook/dinov2-with-registers-{name}")
       for size, name in V2_HUB.items()},
    **{f"dinov3_vit{size}16{plus}": Name(size + plus, 16, V3, pixels.DINOV3,
                                         f"facebook/dinov3-vit{size}16{plus}-pretrain-lvd1689m")
       for size, plus in (("s", ""), ("s", "plus"), ("b", ""), ("l", ""), ("h", "plus"), ("7b", ""))},
    **{f"dinov3_vit{size}16/sat493m": Name(size, 16, V3, pixels.DINOV3_SATELLITE,
                                           f"facebook/dinov3-vit{size}16-pretrain-sat493m")
       for size in ("l", "7b")},
}  # fmt: skip


def _masked(tensors: list[Tensor], _: list[torch.Size]) -> list[Tensor]:
    bias, mask = tensors
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise MiradaError("A bias_mask of this DINOv3 file holds other numbers than 0 and 1: was it ever initialised?")
    return [torch.where(mask == 0, 0.0, bias)]


def _with_mask(tensors: list[Tensor], _: int) -> list[Tensor]:
    mask = torch.ones_like(tensors[0])
    mask[len(mask) // 3 : 2 * len(mask) // 3] = 0
    return [tensors[0], mask]


MASKED_BIAS = How(_masked, _with_mask)  # the keys' third of the joint bias counts as zero there, whatever the file says

DROPPED: Table = [("mask_token", None), ("rope_embed.periods", None), ("local_cls_norm.{}", None)]
MASKED: Row = (
    ("blocks.{}.attn.qkv.bias", "blocks.{}.attn.qkv.bias_mask"), "backbone.blocks.{}.attention.qkv.bias", MASKED_BIAS
)  # fmt: skip
GATED: Table = [  # of DINOv2
    ("blocks.{}.mlp.w12.{}", "backbone.blocks.{}.feed_forward.gate_and_value.{}"),
    ("blocks.{}.mlp.w3.{}", "backbone.blocks.{}.feed_forward.out.{}"),
]
GATED_APART: Table = [  # of DINOv3
    (("blocks.{}.mlp.w1.{}", "blocks.{}.mlp.w2.{}"), "backbone.blocks.{}.feed_forward.gate_and_value.{}", JOIN),
    ("blocks.{}.mlp.w3.{}", "backbone.blocks.{}.feed_forward.out.{}"),
]


def repository(name: str) -> str:
    """Where the same weights are on the hub; DINOv3's are gated."""
    return _known(name).repository


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:  # noqa: ARG001  # these files have no config
    """The plan for an original checkpoint. A training checkpoint gives its teacher, without the projection head."""
    known, where = _known(name), f"dino:{name}"
    prefix = "backbone." if "backbone.cls_token" in shapes else ""
    registers, rotary = known.options.get("registers", 0), "positions" in known.options
    options: dict[str, Any] = SIZES[known.size] | known.options | {"patch_size": known.patch}
    if registers:
        stored = "storage_tokens" if rotary else "register_tokens"
        tokens: Row = (("cls_token", stored), "backbone.prefix", join(1, (1, -1)))
    else:
        tokens = ("cls_token", "backbone.prefix")
    rows: list[Row] = [tokens]
    if rotary:
        options["image_size"] = known.pixels.size[0] // known.patch * known.patch
    else:
        rows.append(("pos_embed", ("backbone.class_position", "backbone.position"), join(1)))
        side = grid_of(shape_of(shapes, f"{prefix}pos_embed", where)[1] - 1, where)
        options["image_size"] = side * known.patch
    first = f"{prefix}blocks.0.mlp."
    if f"{first}w12.weight" in shapes:
        options |= {"activation": "swiglu", "hidden": shapes[f"{first}w12.weight"][0] // 2}
        rows += GATED
    elif f"{first}w1.weight" in shapes:
        options |= {"activation": "swiglu", "hidden": shapes[f"{first}w1.weight"][0]}
        rows += GATED_APART
    else:
        options["hidden"] = shape_of(shapes, f"{first}fc1.weight", where)[0]
    if f"{prefix}blocks.0.attn.qkv.bias" not in shapes:
        options["qkv_bias"] = False
    if known.size == "l" and rotary and not prefix:  # only those for satellite images have this norm
        is_satellite, named = "local_cls_norm.weight" in shapes, name.endswith("/sat493m")
        if is_satellite != named:
            raise MiradaError(f"These are DINOv3's weights for {'satellite' if is_satellite else 'web'} images, which "
                              "have colours of their own: name them dino:dinov3_vitl16"
                              f"{'/sat493m' if is_satellite else ''}.")  # fmt: skip
    if f"{prefix}blocks.0.attn.qkv.bias_mask" in shapes:
        rows.append(MASKED)
    table: list[Row] = [*DROPPED, *rows, *ROWS]  # the rest has timm's names, which were DINO's
    if prefix:
        table = [(_prefixed(row[0], prefix), *row[1:]) for row in table]
        table += [(f"head{'.{}' * parts}", None) for parts in range(1, 5)]  # DINO's projection head
    return Plan(Design(vit_name(**options), known.pixels), table)


def _prefixed(names: str | tuple[str, ...], prefix: str) -> str | tuple[str, ...]:
    return prefix + names if isinstance(names, str) else tuple(prefix + name for name in names)


def _known(name: str) -> Name:
    name = {"dinov3_vitsplus16": "dinov3_vits16plus", "dinov3_vithplus16": "dinov3_vith16plus"}.get(name, name)
    if name in NAMES:
        return NAMES[name]
    nearest = get_close_matches(name, NAMES, 1, cutoff=0.3)
    why = (
        "its network is not a vision transformer. " if "resnet" in name or "convnext" in name or "xcit" in name else ""
    )
    hint = f"did you mean dino:{nearest[0]}? " if nearest and not why else ""
    raise MiradaError(f"Mirada has no dino:{name}: {why}{hint}The names are {', '.join(NAMES)}.")
