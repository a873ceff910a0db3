"""What timm reads: the folder that `timm.create_model("local-dir:DIR", pretrained=True)` takes.

As in timm 1.0.31. The architecture's name says which class it is and what JSON cannot say (the epsilon of its norms,
the kind of its feed-forward layers); everything else stands in `model_args`.
"""

import json
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from mirada.backbones.regnet import Stage, stages
from mirada.checkpoints.conv import Layout
from mirada.checkpoints.timm import ACTIVATIONS, POOLINGS, SIZES
from mirada.checkpoints.timm_conv import REGNET, RESNET
from mirada.errors import MiradaError
from mirada.export.parts import Parts, Proposal, for_its_pixels, with_gains, with_positions_for
from mirada.export.pixels import timm_cfg

__all__ = ["propose", "residual_shapes", "stages_of"]

ENDS = {  # the first convolution and the classifier, which timm adapts to other channels and classes
    "vit": ("patch_embed.proj", "head"), "coatnet": ("stem.conv1", "head.fc"), "resnet": ("conv1", "fc"),
    "regnet": ("stem.conv", "head.fc"),
}  # fmt: skip
WORDS = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
POOLS = {ours: theirs for theirs, ours in POOLINGS.items()}
PLAIN = {
    "tiny": ("vit_tiny_patch16_224",),
    "small": ("vit_small_patch16_224", "vit_small_patch32_224", "vit_small_patch8_224"),
    "base": ("vit_base_patch16_224", "vit_base_patch32_224", "vit_base_patch8_224"),
    "large": ("vit_large_patch16_224", "vit_large_patch32_224", "vit_large_patch14_224"),
    "huge": ("vit_huge_patch14_224",),
}
REGNETS = {  # w_0, w_a, w_m, depth, group_width
    "002": (24, 36.44, 2.49, 13, 8), "004": (48, 27.89, 2.09, 16, 8), "006": (48, 32.54, 2.32, 15, 16),
    "008": (56, 38.84, 2.4, 14, 16), "016": (48, 20.71, 2.65, 27, 24), "032": (80, 42.63, 2.66, 21, 24),
    "040": (96, 31.41, 2.24, 22, 64), "064": (112, 33.22, 2.27, 25, 72), "080": (192, 76.82, 2.19, 17, 56),
    "120": (168, 73.36, 2.37, 19, 112), "160": (200, 106.23, 2.48, 18, 112), "320": (232, 115.89, 2.53, 20, 232),
    "640": (352, 147.48, 2.4, 20, 328), "1280": (456, 160.83, 2.52, 27, 264), "2560": (640, 230.83, 2.53, 27, 373),
}  # fmt: skip


def propose(parts: Parts) -> Proposal:
    """The folder for a model, or a `MiradaError` that says what timm lacks and what to do instead."""
    design = parts.design
    if design.text is not None:
        raise MiradaError("timm has no text towers, and this model has one: export it as hf.")
    if design.head_input in ("class and average", "class and distillation"):
        raise MiradaError(f"timm has no classifier that reads {design.head_input}, as this one does: export it as hf.")
    makers = {"vit": _vit, "coatnet": _coatnet, "resnet": _resnet, "regnet": _regnet}
    if design.projection is not None and parts.family != "coatnet":
        raise MiradaError("timm has no projection behind this model's pooling (projection): export it as hf.")
    parts, architecture, arguments, telltales = makers[parts.family](parts)
    first, classifier = ENDS[parts.family]
    if design.classes is not None:
        telltales[f"{classifier}.weight"] = tuple(parts.tensors["head.weight"].shape)
    config: dict[str, Any] = {
        "architecture": architecture, "num_classes": parts.classes, "num_features": parts.dim,
        "global_pool": arguments.get("global_pool", "avg"), "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": parts.classes, "fixed_input_size": parts.family in ("vit", "coatnet"), "first_conv": first,
            "classifier": classifier, **timm_cfg(design.preprocess),
        },
    }  # fmt: skip
    if design.classes is not None:
        config["label_names"] = list(design.classes)
    return Proposal(parts, {"config.json": json.dumps(config, indent=2) + "\n"}, telltales, architecture=architecture)


def _vit(parts: Parts) -> tuple[Parts, str, dict[str, Any], dict[str, tuple[int, ...]]]:
    given = parts.options
    if given["stem"] != "patch":
        raise MiradaError(
            f"timm has no vision transformer with stem={given['stem']!r}: train one with stem='patch' to export it."
        )
    if given["pooling"] == "sequence":
        raise MiradaError("timm has no pooling='sequence': train with pooling='average' or 'class' to export a model.")
    rotary = given["positions"] == "rotary"
    tokens = int(given["pooling"] == "class") + given["registers"]
    parts = for_its_pixels(parts)
    parts = with_gains(parts) if rotary else with_positions_for(parts, 0 if parts.options["prefix_positions"] == 0
                                                                else tokens)  # fmt: skip
    options, dim = parts.options, parts.options["dim"]
    gated = options["activation"] == "swiglu"
    if gated and not rotary:
        parts = with_gains(parts)
        options = parts.options
    architecture = _architecture(options, rotary, gated)
    hidden = options["hidden"] * (2 if gated and not rotary else 1)
    arguments: dict[str, Any] = {
        "img_size": options["image_size"], "patch_size": options["patch_size"], "embed_dim": dim,
        "depth": options["depth"], "num_heads": options["num_heads"], "mlp_ratio": _ratio(dim, hidden),
        "qkv_bias": options["qkv_bias"], "global_pool": POOLS[options["pooling"]],
        "class_token": options["pooling"] == "class",
    }  # fmt: skip
    if options["layer_scale"] is not None:
        arguments["init_values"] = options["layer_scale"]
    if rotary:  # DINOv3's own class token is one of the registers here, if the mean patch is pooled: see the reader
        arguments["class_token"] = named = options["pooling"] == "class" or options["registers"] > 0
        arguments |= {"num_reg_tokens": tokens - named, "use_fc_norm": False}
    else:
        arguments |= {"reg_tokens": options["registers"], "no_embed_class": options["prefix_positions"] == 0,
                      "pre_norm": options["pre_norm"], "fc_norm": False}  # fmt: skip
        if not gated:
            arguments["act_layer"] = WORDS[options["activation"]]
        if options["pooling"] == "attention" and options["registers"]:
            arguments["pool_include_prefix"] = True
    count = (options["image_size"] // options["patch_size"]) ** 2 + options["prefix_positions"]
    telltales: dict[str, tuple[int, ...]] = {} if rotary else {"pos_embed": (1, count, dim)}
    telltales |= {"cls_token": (1, 1, dim)} if arguments["class_token"] else {}
    telltales[f"blocks.0.mlp.fc1{'_g' if gated and rotary else ''}.weight"] = (hidden, dim)
    return parts, architecture, arguments, telltales


def _architecture(options: Mapping[str, Any], rotary: bool, gated: bool) -> str:
    """A network of timm's that has what its arguments cannot say; the nearest in size, for whoever reads the name."""
    epsilon = options["epsilon"]
    wanted = {key: options[key] for key in ("dim", "depth", "num_heads")}
    size = next((name for name, row in SIZES.items() if row == wanted), "base")
    if rotary:
        if epsilon != 1e-5 or options["pre_norm"] or options["activation"] not in ("gelu", "swiglu"):
            raise MiradaError(
                "timm has rotary positions with epsilon=1e-05 and activation 'gelu' or 'swiglu' only, and this model "
                f"has epsilon={epsilon} and {options['activation']!r}: export it as hf."
            )
        if options["pooling"] == "attention" or (gated and options["hidden"] % 8):
            raise MiradaError(
                "timm has no rotary positions with pooling='attention', or with a swiglu whose width is no multiple "
                "of 8: train with pooling='average' to export a model."
            )
        if gated:
            return f"vit_{'huge_plus' if size == 'huge_plus' else 'small_plus'}_patch16_dinov3"
        return f"vit_{size if size in ('small', 'base', 'large') else 'small'}_patch16_dinov3"
    if gated:
        if epsilon != 1e-6:
            raise MiradaError(f"timm has activation='swiglu' with epsilon=1e-06, not {epsilon}: export it as hf.")
        if options["pooling"] == "attention":
            raise MiradaError("timm has no pooling='attention' with activation='swiglu': train with another pooling.")
        return "vit_giant_patch14_dinov2"
    if epsilon == 1e-5:
        names = {"huge": "vit_huge_patch14", "large": "vit_large_patch14", "gigantic": "vit_gigantic_patch14"}
        name = names.get(size, f"vit_base_patch{32 if options['patch_size'] == 32 else 16}")
        quick = "quickgelu_" if options["activation"] == "quickgelu" and size in ("base", "large", "huge") else ""
        return f"{name}_clip_{quick}224"
    if epsilon != 1e-6:
        raise MiradaError(f"timm's norms have epsilon=1e-06 or 1e-05, and this model's {epsilon}: export it as hf.")
    names_of_size = PLAIN.get(size, PLAIN["base"])
    return next((name for name in names_of_size if f"patch{options['patch_size']}_" in name), names_of_size[0])


def _ratio(dim: int, hidden: int) -> float:
    """The number whose product with `dim`, cut off to a whole one, is `hidden`."""
    return hidden / dim if int(dim * (hidden / dim)) == hidden else (hidden + 0.5) / dim


def _coatnet(parts: Parts) -> tuple[Parts, str, dict[str, Any], dict[str, tuple[int, ...]]]:
    options, tensors = parts.options, parts.tensors
    kind, widths, depths = options["variant"], options["widths"], options["depths"]
    projection = parts.design.projection
    if parts.design.preprocess.size != (options["image_size"],) * 2:
        raise MiradaError(
            f"timm's CoAtNets are built for the size they see, and this one has image_size={options['image_size']} and "
            "sees another: train it at the size it is used at to export it."
        )
    if kind == "paper" or (kind == "timm") != (projection is not None):
        why = {"paper": "depart from the paper's", "timm": "of this variant classify behind a projection"}
        raise MiradaError(
            f"timm's CoAtNets {why.get(kind, 'of this variant have no projection')} (variant={kind!r}): train one with "
            "variant='0_rw' to export it."
        )
    arguments: dict[str, Any] = {
        "img_size": options["image_size"], "embed_dim": list(widths[1:]), "depths": list(depths),
        "stem_width": [widths[0] // 2, widths[0]] if "rw" in kind else widths[0],
    }  # fmt: skip
    if projection is not None:
        arguments["head_hidden_size"] = projection.dim
    telltales: dict[str, tuple[int, ...]] = {"stem.conv2.weight": tuple(tensors["backbone.stem.3.weight"].shape)}
    index = 0
    for stage, depth in enumerate(depths):
        for block in range(depth):
            start = f"stages.{stage}.blocks.{block}"
            if stage < 2:
                telltales[f"{start}.conv3_1x1.weight"] = (widths[stage + 1],)
                continue
            telltales[f"{start}.attn.proj.weight"] = (widths[stage + 1],)
            here = f"backbone.transformers.{index}.attention"
            telltales[f"{start}.attn.qkv.weight"] = tuple(tensors[f"{here}.qkv.weight"].shape)
            if (table := tensors.get(f"{here}.table")) is not None:
                telltales[f"{start}.attn.rel_pos.relative_position_bias_table"] = (table[0].numel(), len(table))
            index += 1
    if projection is not None:
        telltales["head.pre_logits.fc.weight"] = (projection.dim, widths[-1])
    name = "coatnet_0_224" if kind == "timm" else f"coatnet_{kind}_224"
    return parts, name, arguments, telltales


def _resnet(parts: Parts) -> tuple[Parts, str, dict[str, Any], dict[str, tuple[int, ...]]]:
    options = parts.options
    if options["small_images"] or options["stem_width"] != 64:
        option = "small_images=True" if options["small_images"] else f"stem_width={options['stem_width']}"
        hint = "train without it to export a model" if options["small_images"] else "export it as hf"
        raise MiradaError(f"timm has no residual network with {option}: {hint}.")
    names = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet34"}
    if options["bottleneck"]:
        names = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152",
                 (3, 24, 36, 3): "resnet200"}  # fmt: skip
    depths = tuple(options["depths"])
    name = names.get(depths)
    arguments: dict[str, Any] = {} if name else {"layers": list(depths)}
    if options["widths"] is not None:
        arguments["channels"] = [width // (4 if options["bottleneck"] else 1) for width in options["widths"]]
    if len(depths) != 4:
        raise MiradaError(f"timm's residual networks have four stages, and this one {len(depths)}: export it as hf.")
    fallback = "resnet50" if options["bottleneck"] else "resnet18"
    starts = [[f"layer{stage}.{block}" for block in range(depth)] for stage, depth in enumerate(depths, 1)]
    return parts, name or fallback, arguments, residual_shapes(parts, RESNET, starts)


def _regnet(parts: Parts) -> tuple[Parts, str, dict[str, Any], dict[str, tuple[int, ...]]]:
    options, made = parts.options, stages_of(parts)
    if len(made) != 4:
        raise MiradaError(f"timm's RegNets have four stages, and this one {len(made)}: export it as hf.")
    arguments: dict[str, Any] = {} if options["stem_width"] == 32 else {"stem_width": options["stem_width"]}
    known = {f"regnety_{name}": stages(*row, rounding="nearest") for name, row in REGNETS.items()}
    known |= {f"regnety_{name}_tv": stages(*REGNETS[name]) for name in ("008", "080")}
    name = next((name for name, plan in known.items() if plan == made), None)
    if name is None:
        if options["plan"] is not None:
            raise MiradaError("timm makes RegNets of five numbers, and no such make this one's plan: export it as hf.")
        words = {"w_0": "w0", "w_a": "wa", "w_m": "wm", "depth": "depth", "group_width": "group_size"}
        arguments |= {theirs: options[ours] for ours, theirs in words.items()}
        name = "regnety_008_tv" if options["rounding"] == "generous" else "regnety_008"
    starts = [[f"s{number}.b{block}" for block in range(1, stage.depth + 1)] for number, stage in enumerate(made, 1)]
    return parts, name, arguments, residual_shapes(parts, REGNET, starts)


def stages_of(parts: Parts) -> list[Stage]:
    """The stages of a RegNet."""
    options = parts.options
    if options["plan"] is not None:
        return [Stage(*stage) for stage in options["plan"]]
    numbers = ("w_0", "w_a", "w_m", "depth", "group_width", "rounding")
    return stages(**{key: options[key] for key in numbers})


def residual_shapes(parts: Parts, layout: Layout, starts: list[list[str]]) -> dict[str, tuple[int, ...]]:
    """Shapes under the names of a residual network's layout, whose blocks' names begin so, by stage."""
    tensors = parts.tensors
    shapes = {f"{layout.stem[0]}.weight": tuple(tensors["backbone.stem.0.0.weight"].shape)}
    firsts = accumulate((len(stage) for stage in starts), initial=0)
    for first, stage in zip(firsts, starts, strict=False):
        for index, start in enumerate(stage, first):
            for here, there in layout.parts.items():
                tensor = tensors.get(f"backbone.blocks.{index}.{here}.weight")
                if tensor is not None:
                    shapes[f"{start}.{there}.weight"] = tuple(tensor.shape)
    return shapes
