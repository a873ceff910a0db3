"""timm's checkpoints: vision transformers here, convolutional and hybrid networks in `timm_conv`.

As in timm 1.0.31. A name says which network it is, the shapes how many classes and positions it has, and config.json
what it expects of pixels. timm takes position tables to another size by antialiased bicubic interpolation.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mirada.checkpoints import timm_conv
from mirada.checkpoints.conv import numbered
from mirada.checkpoints.files import Files
from mirada.checkpoints.pixels import CLIP, HALF, IMAGENET, SATELLITE, from_timm
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import JOIN, How, Shapes, Table, join
from mirada.checkpoints.vit import grid_of, shape_of, vit_name
from mirada.errors import MiradaError
from mirada.model import Design

__all__ = ["QV_BIAS", "ROWS", "TANH", "plan", "repository", "usual_pixels"]

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 192, "depth": 12, "num_heads": 3},
    "xsmall": {"dim": 256, "depth": 10, "num_heads": 4},
    "small": {"dim": 384, "depth": 12, "num_heads": 6},
    "medium": {"dim": 512, "depth": 12, "num_heads": 8},
    "betwixt": {"dim": 640, "depth": 12, "num_heads": 10},
    "base": {"dim": 768, "depth": 12, "num_heads": 12},
    "large": {"dim": 1024, "depth": 24, "num_heads": 16},
    "so400m": {"dim": 1152, "depth": 27, "num_heads": 16},
    "huge": {"dim": 1280, "depth": 32, "num_heads": 16},
    "giant": {"dim": 1408, "depth": 40, "num_heads": 16},
    "giantopt": {"dim": 1536, "depth": 40, "num_heads": 16},
    "gigantic": {"dim": 1664, "depth": 48, "num_heads": 16},
    "small_plus": {"dim": 384, "depth": 12, "num_heads": 6},
    "huge_plus": {"dim": 1280, "depth": 32, "num_heads": 20},
    "7b": {"dim": 4096, "depth": 40, "num_heads": 32},
}
DINOV2_GIANT = {"dim": 1536, "depth": 40, "num_heads": 24}


# Of whose networks timm's GELU is the approximate one; the others' is exact.
TANH = re.compile(
    r"vit_(base_patch32_siglip|large_patch16_siglip(_gap)?_512|so400m_patch16_siglip|giantopt_patch16_siglip)"
)


class Flavour(NamedTuple):
    """A kind of transformer: options of ours, and its usual preprocessing where no config says it."""

    options: dict[str, Any]
    pixels: dict[str, Any]
    pooling: str = "token"  # timm's word


Colours = tuple[tuple[float, ...], tuple[float, ...]]


def _colours(colours: Colours) -> dict[str, Any]:
    return {"mean": colours[0], "std": colours[1]}


def _pixels(colours: Colours, crop: float, size: int = 224) -> dict[str, Any]:
    return _colours(colours) | {"crop_pct": crop, "input_size": (3, size, size)}


DINOV2 = _pixels(IMAGENET, 1.0, 518)
FLAVOURS = {  # what stands behind the patch size in a name, the image size left out
    "": Flavour({}, _pixels(HALF, 0.9)),
    "clip": Flavour({"pre_norm": True, "epsilon": 1e-5}, _pixels(CLIP, 1.0)),
    "clip_quickgelu": Flavour({"pre_norm": True, "epsilon": 1e-5, "activation": "quickgelu"}, _pixels(CLIP, 1.0)),
    "siglip": Flavour({}, _pixels(HALF, 0.9), "map"),
    "siglip_gap": Flavour({}, _pixels(HALF, 0.9), "avg"),
    "dinov2": Flavour({"layer_scale": 1e-5}, DINOV2),
    "reg4_dinov2": Flavour({"layer_scale": 1e-5, "registers": 4, "prefix_positions": 0}, DINOV2),
    "deit3": Flavour({"layer_scale": 1e-6, "prefix_positions": 0}, _pixels(IMAGENET, 1.0)),
    "deit": Flavour({}, _pixels(IMAGENET, 0.9)),
    "dinov3": Flavour({"layer_scale": 1e-5, "registers": 4, "positions": "rotary", "epsilon": 1e-5, "qkv_bias": False},
                      _pixels(IMAGENET, 1.0, 256), "avg"),
}  # fmt: skip
FLAVOURS["dinov3_qkvb"] = FLAVOURS["dinov3"]._replace(options=FLAVOURS["dinov3"].options | {"qkv_bias": True})
# What the weights of a name, `ARCHITECTURE.TAG`, say otherwise; of several that fit, the later ones win.
OTHERWISE: tuple[tuple[str, dict[str, Any]], ...] = (
    (r".*\.(dino|mae)", _colours(IMAGENET)),
    (r".*\.miil", _colours(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))),
    (r".*\.sat493m", _colours(SATELLITE)),
    (r".*\.bamboo", _colours(CLIP) | {"crop_pct": 1.0}),
    (r"vit_large_patch14_clip_\d+\.laion2b.*", _colours(HALF)),
    (r"(vit|deit)_[a-z]+_patch\d+_384\..*", {"crop_pct": 1.0}),
    (r"deit3_\w+_224\.fb_in1k", {"crop_pct": 0.9}),
    (r"vit_base_patch(16|32)_clip_(quickgelu_)?224\.openai.*", {"crop_pct": 0.9}),
    (r"vit_base_patch32_clip_(quickgelu_)?224\.(laion2b.*|laion400m_e32)", {"crop_pct": 0.9}),
    (r"vit_base_patch16_clip_224\.laion2b_ft_in12k|.*\.tinyclip_.*", {"crop_pct": 0.9}),
    (r"vit_base_patch16_clip_224\.\w+_ft_in12k_in1k", {"crop_pct": 0.95}),
    (r"vit_base_patch\d+_clip_384\.openai_ft_in12k_in1k", {"crop_pct": 0.95}),
    (r"vit_so400m_patch14_siglip_(378\.webli_ft.*|gap_(378\.webli.*|(384|448|896)\..*))", {"crop_pct": 1.0}),
    (r"(?!vit_base_patch32_clip_384\.laion2b).*_clip_3(36|84)\.\w+_ft_.*", {"crop_mode": "squash"}),
    (r".*_clip_378\.metaclip2.*|.*_siglip_(gap_)?378\.webli_ft.*", {"crop_mode": "squash"}),
)
POOLINGS = {"token": "class", "avg": "average", "map": "attention"}
# What a model may have been made with, because it shows in the shapes or only matters in training.
MEASURES = {"embed_dim": "dim", "depth": "depth", "num_heads": "num_heads"}  # timm's words for what a size says
ARGUMENTS = {
    *MEASURES, "img_size", "num_classes", "global_pool", "in_chans", "drop_rate", "drop_path_rate", "dynamic_img_size",
    "class_token", "fc_norm", "use_fc_norm", "mlp_ratio",
}  # fmt: skip
OPTIONS = {"init_values": "layer_scale", "pre_norm": "pre_norm", "qkv_bias": "qkv_bias", "reg_tokens": "registers",
           "num_reg_tokens": "registers"}  # fmt: skip
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quickgelu"}
USUAL = {"pre_norm": False, "qkv_bias": True, "registers": 0, "activation": "gelu"}  # that need not be said
OTHERS = {"act_layer", "no_embed_class", "patch_size", "pool_include_prefix"}  # that are read one by one


def _without_key(tensors: list[Tensor], _: list[torch.Size]) -> list[Tensor]:
    return [torch.cat([tensors[0], torch.zeros_like(tensors[0]), tensors[1]])]


def _only_without_key(tensors: list[Tensor], _: int) -> list[Tensor]:
    query, key, value = tensors[0].chunk(3)
    if bool(key.any()):
        raise MiradaError("The biases of keys, which this model has, have no place in that layout: it has none.")
    return [query, value]


QV_BIAS = How(_without_key, _only_without_key)  # keys have no bias there, and one of zeros here

ROWS: Table = [
    ("norm_pre.{}", "backbone.pre_norm.{}"),
    ("patch_embed.proj.{}", "backbone.stem.{}"),
    ("blocks.{}.norm1.{}", "backbone.blocks.{}.norm1.{}"),
    ("blocks.{}.attn.qkv.{}", "backbone.blocks.{}.attention.qkv.{}"),
    (("blocks.{}.attn.q_bias", "blocks.{}.attn.v_bias"), "backbone.blocks.{}.attention.qkv.bias", QV_BIAS),
    ("blocks.{}.attn.proj.{}", "backbone.blocks.{}.attention.proj.{}"),
    ("blocks.{}.ls1.gamma", "backbone.blocks.{}.scale1.gain"),
    ("blocks.{}.norm2.{}", "backbone.blocks.{}.norm2.{}"),
    ("blocks.{}.mlp.fc1.{}", "backbone.blocks.{}.feed_forward.0.{}"),
    ("blocks.{}.mlp.fc2.{}", "backbone.blocks.{}.feed_forward.2.{}"),
    ("blocks.{}.mlp.fc1.{}", "backbone.blocks.{}.feed_forward.gate_and_value.{}"),
    ("blocks.{}.mlp.fc2.{}", "backbone.blocks.{}.feed_forward.out.{}"),
    ("blocks.{}.ls2.gamma", "backbone.blocks.{}.scale2.gain"),
    ("norm.{}", "backbone.norm.{}"),
    ("attn_pool.latent", "backbone.pool.query"),
    ("attn_pool.q.{}", "backbone.pool.project_query.{}"),
    ("attn_pool.kv.{}", "backbone.pool.key_value.{}"),
    ("attn_pool.proj.{}", "backbone.pool.proj.{}"),
    ("attn_pool.norm.{}", "backbone.pool.norm.{}"),
    ("attn_pool.mlp.fc1.{}", "backbone.pool.feed_forward.0.{}"),
    ("attn_pool.mlp.fc2.{}", "backbone.pool.feed_forward.2.{}"),
    ("head.{}", "head.{}"),
]  # fmt: skip
EVA_ROWS: Table = [  # DINOv3 is a model of another class, whose names differ in places
    ("blocks.{}.gamma_1", "backbone.blocks.{}.scale1.gain"),
    ("blocks.{}.gamma_2", "backbone.blocks.{}.scale2.gain"),
    (("blocks.{}.attn.q_bias", "blocks.{}.attn.v_bias"), "backbone.blocks.{}.attention.qkv.bias", QV_BIAS),
    (("blocks.{}.mlp.fc1_g.{}", "blocks.{}.mlp.fc1_x.{}"), "backbone.blocks.{}.feed_forward.gate_and_value.{}", JOIN),
    ("blocks.{}.mlp.fc2.{}", "backbone.blocks.{}.feed_forward.out.{}"),
    (("blocks.{}.mlp.w1.{}", "blocks.{}.mlp.w2.{}"), "backbone.blocks.{}.feed_forward.gate_and_value.{}", JOIN),
    ("blocks.{}.mlp.w3.{}", "backbone.blocks.{}.feed_forward.out.{}"),
]  # fmt: skip


def repository(name: str) -> str:
    """timm publishes each `ARCHITECTURE.TAG` as a repository of that name, those with QuickGELU under the name without
    it; a name with a slash is a repository."""
    if "/" in name:
        return name
    if "." not in name:
        raise MiradaError(
            f"timm:{name} says which architecture and not which weights: add the tag, such as "
            "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k, or give weights=FILE."
        )
    return f"timm/{name.replace('_clip_quickgelu_', '_clip_')}"


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `timm:NAME`, or for what `timm.models.save_for_hf` wrote."""
    config = (files.json("config.json") if files is not None else None) or {}
    asked = name.rpartition("/")[2]
    architecture, _, tag = str(config.get("architecture") or asked).partition(".")
    if architecture == asked.partition(".")[0].replace("_clip_quickgelu_", "_clip_"):
        architecture = asked.partition(".")[0]
    tag = tag or str((config.get("pretrained_cfg") or {}).get("tag") or "")
    if re.match(r"(coatnet|resnet|regnet)|test_coatnet", architecture):
        return timm_conv.plan(architecture, config or None, shapes)
    size, patch, flavour, _ = _parse(architecture)
    made_with = {key: value for key, value in (config.get("model_args") or {}).items() if value is not None}  # as timm
    size = size | {ours: made_with[theirs] for theirs, ours in MEASURES.items() if theirs in made_with}
    if unknown := sorted(made_with.keys() - ARGUMENTS - OPTIONS.keys() - OTHERS):
        raise MiradaError(
            f"timm's {architecture} was made with {', '.join(unknown)}, which Mirada does not know: it would "
            "be loaded as another network."
        )
    said = {key: value for key, value in (config.get("pretrained_cfg") or {}).items() if value}
    pixels = from_timm(usual_pixels(architecture, tag) | said)
    patch = made_with.get("patch_size", patch)
    options = flavour.options | ({"activation": "gelu_tanh"} if TANH.match(architecture) else {})
    options |= _made_with(architecture, made_with)
    pooling = _pooling(architecture, config, flavour, shapes)
    options |= _pooled(pooling, options, shapes, architecture, made_with)
    options["image_size"], prefix_rows = _positions(architecture, patch, pixels.size[0], options, shapes)
    packed = "blocks.0.mlp.fc1.weight" in shapes and bool(re.match(r"vit_giant_.*dinov2", architecture))
    hidden = _hidden(architecture, shapes)
    if packed or "blocks.0.mlp.fc1.weight" not in shapes:
        options["activation"] = "swiglu"
        hidden //= 2 if packed else 1
    options = {key: value for key, value in options.items() if key not in USUAL or USUAL[key] != value}
    return Plan(
        Design(
            vit_name(**size, hidden=hidden, patch_size=patch, **options), pixels,
            classes=_classes(config, shapes),
        ),
        [*prefix_rows, *(EVA_ROWS if "dinov3" in architecture else []), *ROWS],
    )  # fmt: skip


def usual_pixels(architecture: str, tag: str) -> dict[str, Any]:
    """What timm's configuration of these weights says of pixels, for weights that come without one."""
    _, _, flavour, side = _parse(architecture)
    pixels = flavour.pixels | ({"input_size": (3, side, side)} if side else {})
    for pattern, otherwise in OTHERWISE:
        if re.fullmatch(pattern, f"{architecture}.{tag}"):
            pixels = pixels | otherwise
    return pixels


def _parse(architecture: str) -> tuple[dict[str, Any], int, Flavour, int | None]:
    """Size, patch, flavour and, if it is there, image size of a name such as vit_base_patch16_clip_224."""
    match = re.fullmatch(r"(vit|deit|deit3)_(\w+?)_patch(\d+)(?:_([a-z]\w*?))?(?:_(\d{3}))?", architecture)
    if match is None or match[2] not in SIZES:
        raise MiradaError(_unknown(architecture))
    kind = match[4] or ("" if match[1] == "vit" else match[1])
    if kind not in FLAVOURS or (match[4] and match[1] != "vit"):
        raise MiradaError(_unknown(architecture))
    size = DINOV2_GIANT if match[2] == "giant" and "dinov2" in kind else SIZES[match[2]]
    return size, int(match[3]), FLAVOURS[kind], int(match[5]) if match[5] else None


def _unknown(architecture: str) -> str:
    known = [f"vit_{size}_patch16{f'_{kind}' if kind else ''}_224" for size in SIZES for kind in FLAVOURS]
    nearest = get_close_matches(architecture, known, 1)
    return (
        f"timm's {architecture} is not among the networks that Mirada loads exactly"
        f"{f': the nearest of them is called {nearest[0]}' if nearest else ''}; these are vit_SIZE_patchN with "
        f"{', '.join(kind for kind in FLAVOURS if kind)} or nothing behind it, deit_, deit3_, coatnet_, "
        "resnet and regnety_."
    )


def _pooling(architecture: str, config: Mapping[str, Any], flavour: Flavour, shapes: Shapes) -> str:
    """timm's word for how tokens are pooled: as the config says, or as the architecture usually does."""
    made_with = config.get("model_args") or {}
    pooling = str(made_with.get("global_pool") or config.get("global_pool") or flavour.pooling)
    if pooling not in POOLINGS or "fc_norm.weight" in shapes:
        raise MiradaError(
            f"timm's {architecture} normalises after pooling (global_pool={pooling!r}, fc_norm), which Mirada's ViT "
            "does not do: use one with global_pool='token' or 'map'."
        )
    return pooling


def _made_with(architecture: str, made_with: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ours for what it was made with, where the name of the architecture says something else."""
    options = {ours: made_with[theirs] for theirs, ours in OPTIONS.items() if theirs in made_with}
    activation, patch = made_with.get("act_layer", "gelu"), made_with.get("patch_size", 1)
    if activation not in ACTIVATIONS or not isinstance(patch, int):
        raise MiradaError(
            f"timm's {architecture} was made with act_layer={activation!r} and patch_size={patch!r}: Mirada knows "
            f"{', '.join(ACTIVATIONS)}, and patches that are squares of one number."
        )
    if "act_layer" in made_with:
        options["activation"] = ACTIVATIONS[activation]
    if "no_embed_class" in made_with:
        options["prefix_positions"] = 0 if made_with["no_embed_class"] else None
    return options


def _pooled(
    pooling: str, options: Mapping[str, Any], shapes: Shapes, architecture: str, made_with: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of ours. A class token beside registers that is not what is pooled is one register more."""
    if pooling == "token":
        return {}
    registers = options.get("registers", 0)
    registers += int(bool(registers) and "cls_token" in shapes)
    if registers and made_with.get("pool_include_prefix", False) != (pooling == "map"):
        raise MiradaError(
            f"timm's {architecture} pools with global_pool={pooling!r} and other tokens than Mirada's ViT, which takes "
            "registers into attention pooling (pool_include_prefix), and never into an average."
        )
    return {"pooling": POOLINGS[pooling]} | ({"registers": registers} if registers else {})


def _positions(architecture: str, patch: int, size: int, options: dict[str, Any], shapes: Shapes) -> tuple[int, Table]:
    """The image size whose grid the position table has, and the rows for the table and for the tokens before, of which
    all have a position or none has."""
    pooled_class = options.get("pooling", "class") == "class"
    tokens = int(pooled_class) + options.get("registers", 0)
    rows: Table = []
    if tokens == 1 and pooled_class:
        rows = [("cls_token", "backbone.prefix")]
    elif tokens:
        both = "cls_token" in shapes
        rows = [(("cls_token", "reg_token"), "backbone.prefix", join(1, (1, -1))) if both else
                ("reg_token", "backbone.prefix")]  # fmt: skip
    if options.get("positions") == "rotary":
        return size // patch * patch, rows
    positioned = options.get("prefix_positions")
    if positioned is None:
        positioned = tokens
    options["prefix_positions"] = None if positioned == int(pooled_class) else positioned
    side = grid_of(shape_of(shapes, "pos_embed", f"timm's {architecture}")[1] - positioned, f"timm's {architecture}")
    if positioned:
        rows = [*rows, ("pos_embed", ("backbone.class_position", "backbone.position"), join(1))]
    else:
        rows = [*rows, ("pos_embed", "backbone.position")]
    return (size if size // patch == side else side * patch), rows


def _hidden(architecture: str, shapes: Shapes) -> int:
    """The width of the feed-forward layers, of both halves together where they are packed."""
    for name in ("fc1", "fc1_g", "w1"):
        if f"blocks.0.mlp.{name}.weight" in shapes:
            return shapes[f"blocks.0.mlp.{name}.weight"][0]
    return shape_of(shapes, "blocks.0.mlp.fc1.weight", f"timm's {architecture}")[0]


def _classes(config: Mapping[str, Any], shapes: Shapes) -> tuple[str, ...] | None:
    numbers = numbered(shapes, "head")
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    if numbers is None or not isinstance(names, (list, tuple)) or len(names) != len(numbers):
        return numbers
    return tuple(map(str, names))
