"""transformers' vision transformers: ViT, DeiT, MAE, DINOv2 (with registers and without) and DINOv3.

As in transformers 5.24. Its image feature is what the pooler gives where the file has one, else the class token. Where
one of them is taken to another image size its own way, `resample` says so.
"""

from typing import Any

import torch
from torch import Tensor

from mirada.checkpoints.files import Files
from mirada.checkpoints.pixels import from_hf, hf_config
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import JOIN, How, Row, Shapes, Table, join
from mirada.checkpoints.timm import QV_BIAS
from mirada.checkpoints.vit import depth_of, grid_of, shape_of, side_of, vit_name
from mirada.errors import MiradaError
from mirada.model import Design, HeadInput, Projection

__all__ = ["plan_deit", "plan_dinov2", "plan_dinov3", "plan_mae", "plan_vit"]

Config = dict[str, Any]

ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quickgelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}

QKV = ("query", "key", "value")
ATTENTION: Table = [
    (tuple(f"encoder.layer.{{}}.attention.attention.{part}.{{}}" for part in QKV),
     "backbone.blocks.{}.attention.qkv.{}", JOIN),
    ("encoder.layer.{}.attention.output.dense.{}", "backbone.blocks.{}.attention.proj.{}"),
]  # fmt: skip
ENDS: Table = [
    ("embeddings.mask_token", None),
    ("embeddings.patch_embeddings.projection.{}", "backbone.stem.{}"),
    ("embeddings.position_embeddings", ("backbone.class_position", "backbone.position"), join(1)),
    ("layernorm.{}", "backbone.norm.{}"),
]  # fmt: skip
VIT: Table = [
    *ATTENTION, *ENDS,
    ("encoder.layer.{}.layernorm_before.{}", "backbone.blocks.{}.norm1.{}"),
    ("encoder.layer.{}.layernorm_after.{}", "backbone.blocks.{}.norm2.{}"),
    ("encoder.layer.{}.intermediate.dense.{}", "backbone.blocks.{}.feed_forward.0.{}"),
    ("encoder.layer.{}.output.dense.{}", "backbone.blocks.{}.feed_forward.2.{}"),
    ("pooler.dense.{}", "projection.{}"),
]  # fmt: skip
DINOV2: Table = [
    *ATTENTION, *ENDS,
    ("encoder.layer.{}.norm1.{}", "backbone.blocks.{}.norm1.{}"),
    ("encoder.layer.{}.norm2.{}", "backbone.blocks.{}.norm2.{}"),
    ("encoder.layer.{}.layer_scale1.lambda1", "backbone.blocks.{}.scale1.gain"),
    ("encoder.layer.{}.layer_scale2.lambda1", "backbone.blocks.{}.scale2.gain"),
    ("encoder.layer.{}.mlp.fc1.{}", "backbone.blocks.{}.feed_forward.0.{}"),
    ("encoder.layer.{}.mlp.fc2.{}", "backbone.blocks.{}.feed_forward.2.{}"),
    ("encoder.layer.{}.mlp.weights_in.{}", "backbone.blocks.{}.feed_forward.gate_and_value.{}"),
    ("encoder.layer.{}.mlp.weights_out.{}", "backbone.blocks.{}.feed_forward.out.{}"),
]  # fmt: skip
DINOV3: Table = [
    ("embeddings.mask_token", None),
    ("embeddings.patch_embeddings.{}", "backbone.stem.{}"),
    (tuple(f"layer.{{}}.attention.{part}_proj.weight" for part in "qkv"),
     "backbone.blocks.{}.attention.qkv.weight", JOIN),
    ("layer.{}.attention.o_proj.{}", "backbone.blocks.{}.attention.proj.{}"),
    ("layer.{}.layer_scale1.lambda1", "backbone.blocks.{}.scale1.gain"),
    ("layer.{}.layer_scale2.lambda1", "backbone.blocks.{}.scale2.gain"),
    ("layer.{}.norm1.{}", "backbone.blocks.{}.norm1.{}"),
    ("layer.{}.norm2.{}", "backbone.blocks.{}.norm2.{}"),
    ("layer.{}.mlp.up_proj.{}", "backbone.blocks.{}.feed_forward.0.{}"),
    ("layer.{}.mlp.down_proj.{}", "backbone.blocks.{}.feed_forward.2.{}"),
    (("layer.{}.mlp.gate_proj.{}", "layer.{}.mlp.up_proj.{}"),
     "backbone.blocks.{}.feed_forward.gate_and_value.{}", JOIN),
    ("layer.{}.mlp.down_proj.{}", "backbone.blocks.{}.feed_forward.out.{}"),
    ("norm.{}", "backbone.norm.{}"),
]  # fmt: skip


def plan_vit(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `ViTModel` and `ViTForImageClassification`; also DINO's, whose weights have this layout too."""
    prefix = _prefix(shapes, "vit")
    pooled = f"{prefix}pooler.dense.weight" in shapes and "classifier.weight" not in shapes
    if pooled and config.get("pooler_act", "tanh") != "tanh":
        raise MiradaError(f"transformers' ViT has a pooler with {config['pooler_act']!r}: Mirada knows 'tanh' only.")
    rows: Table = [("embeddings.cls_token", "backbone.prefix"), *VIT]
    if not pooled:
        rows = [("pooler.dense.{}", None), *rows]
    dim = shapes[f"{prefix}pooler.dense.weight"][0] if pooled else 0
    return _plan(
        "vit", config, files, shapes, [*_under(prefix, rows), *HEAD], _options(config, shapes, prefix, 1),
        projection=Projection(dim, bias=True, tanh=True) if pooled else None,
    )  # fmt: skip


def plan_deit(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `DeiTModel`, `DeiTForImageClassification` and, with the mean of its two classifiers,
    `DeiTForImageClassificationWithTeacher` (Touvron et al. 2020, arXiv:2012.12877)."""
    prefix = _prefix(shapes, "deit")
    teacher = "distillation_classifier.weight" in shapes
    pooled = f"{prefix}pooler.dense.weight" in shapes and not teacher and "classifier.weight" not in shapes
    rows: Table = [(("embeddings.cls_token", "embeddings.distillation_token"), "backbone.prefix", join(1)), *VIT]
    if not pooled:
        rows = [("pooler.dense.{}", None), *rows]
    dim = shapes[f"{prefix}pooler.dense.weight"][0] if pooled else 0
    options = _options(config, shapes, prefix, 2) | {"registers": 1, "prefix_positions": 2}
    return _plan(
        "deit", config, files, shapes, [*_under(prefix, rows), *(TWO_HEADS if teacher else HEAD)], options,
        projection=Projection(dim, bias=True, tanh=True) if pooled else None,
        head_input="class and distillation" if teacher else "pooled",
        head="cls_classifier" if teacher else "classifier",
    )  # fmt: skip


def plan_mae(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `ViTMAEModel` and `ViTMAEForPreTraining`, of which the decoder is dropped: all patches are seen."""
    prefix = _prefix(shapes, "vit")
    decoder: list[Row] = [(f"decoder{'.{}' * parts}", None) for parts in range(1, 8)]
    rows: Table = [("embeddings.cls_token", "backbone.prefix"), *VIT]
    return _plan("vit_mae", config, files, shapes, [*_under(prefix, rows), *decoder],
                 _options(config, shapes, prefix, 1))  # fmt: skip


def plan_dinov2(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `Dinov2Model`, `Dinov2ForImageClassification` and the same with registers."""
    kind = str(config["model_type"])
    prefix = _prefix(shapes, kind)
    registers = int(config.get("num_register_tokens", 4)) if kind == "dinov2_with_registers" else 0
    tokens: Row = ("embeddings.cls_token", "backbone.prefix")
    if registers:
        tokens = (("embeddings.cls_token", "embeddings.register_tokens"), "backbone.prefix", join(1, (1, -1)))
    options = _options(config, shapes, prefix, 1, usual_patch=14 if kind == "dinov2" else 16) | {"layer_scale": 1e-5}
    if registers:
        options |= {"registers": registers, "resample": "antialias"}
    return _plan(
        kind, config, files, shapes, [*_under(prefix, [tokens, *DINOV2]), *HEAD], options,
        head_input="class and average",
    )  # fmt: skip


def plan_dinov3(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `DINOv3ViTModel`."""
    if config.get("rope_theta", 100.0) != 100.0:
        raise MiradaError(f"transformers' DINOv3 has rope_theta={config['rope_theta']}: Mirada knows 100 only.")
    registers = int(config.get("num_register_tokens", 0))
    tokens: Table = [("embeddings.cls_token", "backbone.prefix"), ("embeddings.register_tokens", None)]
    if registers:
        tokens = [(("embeddings.cls_token", "embeddings.register_tokens"), "backbone.prefix", join(1, (1, -1)))]
    gated = "layer.0.mlp.gate_proj.weight" in shapes
    patch = side_of(config, "patch_size", 16)
    options = {
        "dim": config["hidden_size"], "depth": _depth(config, shapes, "layer."),
        "num_heads": config["num_attention_heads"],
        "hidden": shape_of(shapes, "layer.0.mlp.up_proj.weight", "transformers' DINOv3")[0],
        "patch_size": patch, "image_size": side_of(config, "image_size", 224) // patch * patch,
        "registers": registers or None, "positions": "rotary", "layer_scale": 1e-5,
        "epsilon": float(config.get("layer_norm_eps", 1e-5)),
        "activation": "swiglu" if gated else _activation(config),
        "qkv_bias": None if "layer.0.attention.v_proj.bias" in shapes else False,
    }  # fmt: skip
    if gated and config.get("hidden_act", "silu") != "silu":
        raise MiradaError(f"transformers' DINOv3 has a gate with {config['hidden_act']!r}: Mirada knows 'silu' only.")
    parts, how = ("qkv", JOIN) if "layer.0.attention.k_proj.bias" in shapes else ("qv", QV_BIAS)
    biases = tuple(f"layer.{{}}.attention.{part}_proj.bias" for part in parts)
    table = [*tokens, (biases, "backbone.blocks.{}.attention.qkv.bias", how), *DINOV3]
    return _plan("dinov3_vit", config, files, shapes, table, options)


HEAD: Table = [("classifier.{}", "head.{}")]


def _mean_weight(tensors: list[Tensor], _: list[torch.Size]) -> list[Tensor]:
    return [torch.cat([tensor / 2 for tensor in tensors], 1)]


def _mean_bias(tensors: list[Tensor], _: list[torch.Size]) -> list[Tensor]:
    return [(tensors[0] + tensors[1]) / 2]


# The mean of two classifiers, of one token each, is one classifier of both tokens.
TWO_HEADS: Table = [
    (("cls_classifier.weight", "distillation_classifier.weight"), "head.weight",
     How(_mean_weight, lambda tensors, _: [2 * part for part in tensors[0].chunk(2, 1)])),
    (("cls_classifier.bias", "distillation_classifier.bias"), "head.bias",
     How(_mean_bias, lambda tensors, _: [tensors[0], tensors[0].clone()])),
]  # fmt: skip


def _options(config: Config, shapes: Shapes, prefix: str, positioned: int, usual_patch: int = 16) -> dict[str, Any]:
    """What the config and the shapes say of the encoder, as `vit_name` takes it."""
    where = f"transformers' {config['model_type']}"
    first = f"{prefix}encoder.layer.0."
    gated = f"{first}mlp.weights_in.weight" in shapes
    inner = "mlp.weights_in" if gated else "mlp.fc1" if f"{first}mlp.fc1.weight" in shapes else "intermediate.dense"
    hidden = shape_of(shapes, f"{first}{inner}.weight", where)[0]
    patch, size = side_of(config, "patch_size", usual_patch), side_of(config, "image_size", 224)
    side = grid_of(shape_of(shapes, f"{prefix}embeddings.position_embeddings", where)[1] - positioned, where)
    bias = f"{first}attention.attention.query.bias" in shapes
    return {
        "dim": shape_of(shapes, f"{prefix}embeddings.cls_token", where)[-1],
        "depth": _depth(config, shapes, f"{prefix}encoder.layer."),
        "num_heads": config.get("num_attention_heads", 12), "hidden": hidden // 2 if gated else hidden,
        "patch_size": patch, "image_size": size if size // patch == side else side * patch,
        "epsilon": float(config.get("layer_norm_eps", 1e-12 if "dino" not in where else 1e-6)), "resample": "plain",
        "activation": "swiglu" if gated else _activation(config), "qkv_bias": None if bias else False,
    }  # fmt: skip


def _depth(config: Config, shapes: Shapes, prefix: str) -> int:
    depth = depth_of(shapes, prefix)
    if config.get("num_hidden_layers", depth) != depth:
        raise MiradaError(f"The config.json says {config['num_hidden_layers']} layers, and the weights have {depth}: "
                          "one of them belongs to another model.")  # fmt: skip
    return depth


def _activation(config: Config) -> str | None:
    name = str(config.get("hidden_act", "gelu"))
    if name not in ACTIVATIONS:
        raise MiradaError(f"The config.json names the activation {name!r}: Mirada knows {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name] if name != "gelu" else None


def _prefix(shapes: Shapes, name: str) -> str:
    """Models with a head keep the rest under a name of its own."""
    return f"{name}." if any(key.startswith(f"{name}.") for key in shapes) else ""


def _under(prefix: str, rows: Table) -> Table:
    """The same rows, with the names there under a prefix."""

    def named(names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return prefix + names if isinstance(names, str) else tuple(prefix + name for name in names)

    return [(named(row[0]), *row[1:]) for row in rows]


def _plan(
    kind: str, config: Config, files: Files | None, shapes: Shapes, table: Table, options: dict[str, Any], *,
    projection: Projection | None = None, head_input: HeadInput = "pooled", head: str = "classifier",
) -> Plan:  # fmt: skip
    if config.get("num_channels", 3) != 3:
        raise MiradaError(f"transformers' {kind} is for images of {config['num_channels']} channels: Mirada loads 3.")
    pixels = None if files is None else hf_config(files)
    assumed = {"preprocess": f"assumed: there was no preprocessor_config.json for {kind}"} if pixels is None else {}
    names, weight = config.get("id2label") or {}, shapes.get(f"{head}.weight")
    classes = None if weight is None else tuple(str(names.get(str(n), names.get(n, n))) for n in range(weight[0]))
    return Plan(
        Design(
            vit_name(**options), from_hf(pixels, kind, int(options["image_size"])), classes,
            head_input if classes else "pooled", projection, provenance=assumed,
        ),
        table,
    )  # fmt: skip
