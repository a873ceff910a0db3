"""What transformers reads: the folder that `AutoModel`, `AutoModelForImageClassification` and `AutoImageProcessor`
take, and for two towers `AutoTokenizer` too.

As in transformers 5.24. Which of its networks a vision transformer becomes follows from what it has:

    class token, nothing else          ViT with a head; DINOv2 without, whose pooler gives the class token itself
    gains, registers, swiglu           DINOv2, with registers or without
    two tokens that have positions     DeiT
    rotary positions                   DINOv3
    average or attention pooling       SigLIP
    a norm before the first block      CLIP
"""

import json
from typing import Any

import torch

from mirada.checkpoints import hf_conv
from mirada.checkpoints.conv import Layout
from mirada.errors import MiradaError
from mirada.export.parts import (
    Parts,
    Proposal,
    for_its_pixels,
    head_on_class_and_average,
    with_gains,
    with_positions_for,
)
from mirada.export.pixels import hf_processor
from mirada.export.timm import residual_shapes, stages_of
from mirada.export.words import tokenizer_files

__all__ = ["NAMES", "propose"]

NAMES = {  # of all files that an export may write
    "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip
Shapes = dict[str, tuple[int, ...]]

WORDS = {"gelu": "gelu", "quickgelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}
BASES = {"vit": "ViT", "deit": "DeiT", "dinov2": "Dinov2", "dinov2_with_registers": "Dinov2WithRegisters",
         "siglip": "Siglip", "resnet": "ResNet", "regnet": "RegNet", "dinov3_vit": "DINOv3ViT"}  # fmt: skip


def propose(parts: Parts) -> Proposal:
    """The folder for a model, or a `MiradaError` that says what transformers lacks and what to do instead."""
    if parts.family == "coatnet":
        raise MiradaError("transformers has no CoAtNet: export it as timm, which transformers can load too.")
    if parts.design.text is not None and parts.family != "vit":
        raise MiradaError("transformers has no pair of text tower and convolutional network: it cannot be exported.")
    makers = {"vit": _vit, "resnet": _resnet, "regnet": _regnet}
    return makers[parts.family](parts)


def _proposal(
    parts: Parts, kind: str, config: dict[str, Any], telltales: Shapes, *, architecture: str = "", **more: Any
) -> Proposal:
    """With the files that all models have."""
    design = parts.design
    name = architecture or BASES[kind] + ("ForImageClassification" if design.classes is not None else "Model")
    if design.classes is not None:
        config |= {
            "id2label": {str(number): label for number, label in enumerate(design.classes)},
            "label2id": {label: number for number, label in enumerate(design.classes)},
        }
    config = {"architectures": [name], "model_type": kind, "dtype": "float32", **config}
    texts = {"config.json": config, "preprocessor_config.json": hf_processor(design.preprocess)}
    written = {name: json.dumps(values, indent=2) + "\n" for name, values in texts.items()}
    return Proposal(parts, written | more.pop("texts", {}), telltales, architecture=name, **more)


# --- vision transformers -------------------------------------------------------------------------------------------


def _vit(parts: Parts) -> Proposal:
    given, design = parts.options, parts.design
    for option, lacking, hint in (
        ("stem", given["stem"] != "patch", "stem='patch'"),
        ("pooling", given["pooling"] == "sequence", "pooling='average' or 'class'"),
    ):
        if lacking:
            raise MiradaError(
                f"transformers has no vision transformer with {option}={given[option]!r}: train one with {hint} to "
                "export it."
            )
    parts = for_its_pixels(parts)
    if given["positions"] == "rotary":
        return _dinov3(parts)
    if given["pooling"] in ("attention", "average"):
        return _siglip(parts)
    if given["pre_norm"]:
        return _clip(parts)
    if design.text is not None:
        raise MiradaError(
            "transformers has pairs of a text tower with CLIP's vision transformer (pre_norm=True) or SigLIP's "
            "(pooling='attention'), and this image tower is neither: it cannot be exported."
        )
    two = given["registers"] == 1 and given["layer_scale"] is None and given["activation"] != "swiglu"
    if design.head_input == "class and distillation" or (two and given["prefix_positions"] == 2):
        return _plain(with_positions_for(parts, 2), "deit")
    projected = design.projection is not None
    alone = given["layer_scale"] is None and not given["registers"] and given["activation"] != "swiglu"
    if projected or (alone and design.classes is not None and design.head_input == "pooled"):
        return _plain(with_positions_for(parts, 1), "vit")
    return _dinov2(head_on_class_and_average(with_gains(with_positions_for(parts, 1))))


def _sizes(parts: Parts) -> dict[str, Any]:
    options = parts.options
    return {
        "hidden_size": options["dim"], "num_hidden_layers": options["depth"],
        "num_attention_heads": options["num_heads"], "image_size": options["image_size"],
        "patch_size": options["patch_size"], "layer_norm_eps": options["epsilon"], "num_channels": 3,
    }  # fmt: skip


def _feed_forward(parts: Parts, library: str) -> dict[str, Any]:
    """Width and activation, for the networks whose feed-forward layers are plain."""
    activation = parts.options["activation"]
    if activation not in WORDS:
        raise MiradaError(f"transformers' {library} has no activation={activation!r}: export it as timm.")
    return {"intermediate_size": parts.options["hidden"], "hidden_act": WORDS[activation]}


def _encoder(parts: Parts, prefix: str, inner: str) -> Shapes:
    """Telltales of the networks whose tensors are called as in ViT."""
    options, dim = parts.options, parts.options["dim"]
    count = (options["image_size"] // options["patch_size"]) ** 2 + options["prefix_positions"]
    gated = 2 if options["activation"] == "swiglu" else 1
    shapes: Shapes = {
        f"{prefix}embeddings.cls_token": (1, 1, dim), f"{prefix}embeddings.position_embeddings": (1, count, dim),
    }  # fmt: skip
    for layer in range(options["depth"]):
        shapes[f"{prefix}encoder.layer.{layer}.{inner}.weight"] = (gated * options["hidden"], dim)
    if options["qkv_bias"]:
        shapes[f"{prefix}encoder.layer.0.attention.attention.query.bias"] = (dim,)
    return shapes


def _plain(parts: Parts, kind: str) -> Proposal:
    design, dim = parts.design, parts.options["dim"]
    teacher = design.head_input == "class and distillation"
    prefix = f"{kind}." if design.classes is not None else ""
    config = _sizes(parts) | _feed_forward(parts, BASES[kind]) | {"qkv_bias": parts.options["qkv_bias"]}
    telltales = _encoder(parts, prefix, "intermediate.dense")
    if design.projection is not None:
        config |= {"pooler_output_size": design.projection.dim, "pooler_act": "tanh"}
        telltales["pooler.dense.weight"] = (design.projection.dim, dim)
    if design.classes is not None:
        for name in ("cls_classifier", "distillation_classifier") if teacher else ("classifier",):
            telltales[f"{name}.weight"] = (parts.classes, dim)
    name = "DeiTForImageClassificationWithTeacher" if teacher else ""
    return _proposal(parts, kind, config, telltales, architecture=name)


def _dinov2(parts: Parts) -> Proposal:
    options, dim = parts.options, parts.options["dim"]
    kind = "dinov2_with_registers" if options["registers"] else "dinov2"
    gated = options["activation"] == "swiglu"
    config = _sizes(parts) | {
        "mlp_ratio": _whole_ratio(parts), "qkv_bias": options["qkv_bias"], "use_swiglu_ffn": gated,
        "hidden_act": WORDS.get(options["activation"], "gelu"), "layerscale_value": options["layer_scale"],
    }  # fmt: skip
    config |= {"num_register_tokens": options["registers"]} if options["registers"] else {"use_mask_token": False}
    prefix = f"{kind}." if parts.design.classes is not None else ""
    telltales = _encoder(parts, prefix, "mlp.weights_in" if gated else "mlp.fc1")
    if parts.design.classes is not None:
        telltales["classifier.weight"] = (parts.classes, 2 * dim)
    unused = {f"{prefix}embeddings.mask_token": torch.zeros(1, dim)} if options["registers"] else {}
    return _proposal(parts, kind, config, telltales, extra=unused)


def _whole_ratio(parts: Parts) -> int:
    """The whole number from which transformers' DINOv2 makes the width of feed-forward layers."""
    dim, hidden = parts.options["dim"], parts.options["hidden"]
    for ratio in range(1, 17):
        wide = dim * ratio
        if hidden == ((int(wide * 2 / 3) + 7) // 8 * 8 if parts.options["activation"] == "swiglu" else wide):
            return ratio
    raise MiradaError(
        f"transformers' DINOv2 has feed-forward layers of a whole number of widths, and this model has {hidden} for "
        f"{dim}: export it as timm."
    )


def _dinov3(parts: Parts) -> Proposal:
    options, dim = parts.options, parts.options["dim"]
    if options["pooling"] != "class" or parts.design.classes is not None or options["pre_norm"]:
        lacking = (f"pooling={options['pooling']!r}" if options["pooling"] != "class" else "pre_norm"
                   if options["pre_norm"] else "a head")  # fmt: skip
        raise MiradaError(f"transformers has no vision transformer with rotary positions and {lacking}: export it as "
                          "timm.")  # fmt: skip
    parts = with_gains(parts)
    gated, bias = options["activation"] == "swiglu", options["qkv_bias"]
    config = _sizes(parts) | {
        "intermediate_size": options["hidden"], "hidden_act": "silu" if gated else WORDS[options["activation"]],
        "use_gated_mlp": gated, "num_register_tokens": options["registers"], "query_bias": bias, "key_bias": bias,
        "value_bias": bias, "layerscale_value": parts.options["layer_scale"],
    }  # fmt: skip
    telltales: Shapes = {}
    for layer in range(options["depth"]):
        telltales[f"layer.{layer}.mlp.up_proj.weight"] = (options["hidden"], dim)
        telltales |= {f"layer.{layer}.mlp.gate_proj.weight": (options["hidden"], dim)} if gated else {}
        telltales |= {f"layer.{layer}.attention.{part}_proj.bias": (dim,) for part in "qkv"} if bias else {}
    extra = {"embeddings.mask_token": torch.zeros(1, 1, dim)}
    if not options["registers"]:
        extra["embeddings.register_tokens"] = torch.zeros(1, 0, dim)
    return _proposal(parts, "dinov3_vit", config, telltales, extra=extra)


# --- SigLIP and CLIP -----------------------------------------------------------------------------------------------


def _tower(parts: Parts, library: str) -> dict[str, Any]:
    for option, value in (("registers", 0), ("layer_scale", None), ("qkv_bias", True)):
        if parts.options[option] != value:
            with_what = "pre_norm=True" if parts.options["pre_norm"] else f"pooling={parts.options['pooling']!r}"
            raise MiradaError(
                f"transformers has no vision transformer with {option}={parts.options[option]!r} and {with_what}: "
                "export it as timm."
            )
    return _sizes(parts) | _feed_forward(parts, library)


def _siglip(parts: Parts) -> Proposal:
    options, design = parts.options, parts.design
    vision = _tower(parts, "SigLIP")
    if options["pre_norm"]:
        raise MiradaError(f"transformers has no pre_norm=True with pooling={options['pooling']!r}: export it as timm.")
    attentive = options["pooling"] == "attention"
    if design.classes is not None and attentive:
        raise MiradaError(
            "transformers' SigLIP classifies the mean of its tokens, not its pooling='attention': export it as timm."
        )
    if design.projection is not None:
        raise MiradaError("transformers' SigLIP has no projection behind its image tower: it cannot be exported.")
    if design.text is None and design.classes is None:
        config = vision | {"vision_use_head": attentive}
        return _proposal(parts, "siglip_vision_model", config, {}, architecture="SiglipVisionModel")
    vision |= {"vision_use_head": attentive, "model_type": "siglip_vision_model"}
    if design.text is None:
        telltales: Shapes = {"classifier.weight": (parts.classes, options["dim"]),
                             "vision_model.embeddings.patch_embedding.bias": (options["dim"],)}  # fmt: skip
        return _proposal(parts, "siglip", {"vision_config": vision}, telltales)
    text = design.text
    if (text.causal, text.pooling, text.projection, text.bias) != (False, "last", "bias", True):
        raise MiradaError("transformers' SigLIP has another text tower than this model: it cannot be exported.")
    texts, special, notes = tokenizer_files(parts.design, parts.vocabulary)
    config = {
        "vision_config": vision,
        "text_config": _text(parts) | {"projection_size": text.dim, "model_type": "siglip_text_model"} | special,
    }
    return _pair(parts, "siglip", config, "SiglipModel", texts, notes)


def _clip(parts: Parts) -> Proposal:
    design = parts.design
    if design.classes is not None:
        raise MiradaError("transformers' CLIP has no head on its class token (pre_norm=True): export it as timm.")
    parts = with_positions_for(parts, 1)
    vision, projection = _tower(parts, "CLIP"), design.projection
    if projection is not None and (projection.bias or projection.tanh):
        raise MiradaError("transformers' CLIP has a linear projection without bias, this model another: it cannot be "
                          "exported.")  # fmt: skip
    if design.text is None:
        config = vision | ({} if projection is None else {"projection_dim": projection.dim})
        name = "CLIPVisionModel" if projection is None else "CLIPVisionModelWithProjection"
        # transformers keeps the tower of the one under a name of its own
        telltales: Shapes = {} if projection is None else {
            "visual_projection.weight": (projection.dim, parts.options["dim"]),
            "vision_model.embeddings.class_embedding": (parts.options["dim"],),
        }  # fmt: skip
        return _proposal(parts, "clip_vision_model", config, telltales, architecture=name)
    text = design.text
    fits = text.causal and text.pooling in ("end", "largest") and text.projection == "linear" and not text.bias
    if projection is None or not fits:
        raise MiradaError("transformers' CLIP has another text tower than this model: it cannot be exported.")
    texts, special, notes = tokenizer_files(parts.design, parts.vocabulary)
    end = 2 if text.pooling == "largest" else text.end  # 2: the one with the largest id, as in old files
    config = {
        "projection_dim": projection.dim,
        "vision_config": vision | {"projection_dim": projection.dim, "model_type": "clip_vision_model"},
        "text_config": _text(parts) | {"projection_dim": text.dim, "model_type": "clip_text_model"} | special
        | {"eos_token_id": end},
    }  # fmt: skip
    return _pair(parts, "clip", config, "CLIPModel", texts, notes)


def _pair(
    parts: Parts, kind: str, config: dict[str, Any], name: str, texts: dict[str, str], notes: list[str]
) -> Proposal:
    telltales: Shapes = {"vision_model.embeddings.patch_embedding.weight": (), "logit_scale": ()}
    if kind == "siglip":
        telltales |= {"logit_scale": (1,), "logit_bias": (1,)}
    parts = parts._replace(notes=(*parts.notes, *notes))
    return _proposal(parts, kind, config, telltales, architecture=name, texts=texts)


def _text(parts: Parts) -> dict[str, Any]:
    text = parts.design.text
    if text is None or text.activation not in WORDS:
        raise MiradaError("transformers has no text tower with this activation: it cannot be exported.")
    return {
        "vocab_size": text.vocabulary_size, "hidden_size": text.width, "num_hidden_layers": text.depth,
        "num_attention_heads": text.num_heads, "intermediate_size": text.hidden, "hidden_act": WORDS[text.activation],
        "layer_norm_eps": text.epsilon, "max_position_embeddings": text.tokenizer.context,
    }  # fmt: skip


# --- convolutional networks ----------------------------------------------------------------------------------------


def _resnet(parts: Parts) -> Proposal:
    options = parts.options
    if options["small_images"]:
        raise MiradaError("transformers has no ResNet with small_images=True: train without it to export a model.")
    depths, bottleneck = list(options["depths"]), options["bottleneck"]
    usual = [(256 if bottleneck else 64) * 2**stage for stage in range(len(depths))]
    config = {
        "embedding_size": options["stem_width"], "hidden_sizes": list(options["widths"] or usual), "depths": depths,
        "layer_type": "bottleneck" if bottleneck else "basic", "hidden_act": "relu",
        "downsample_in_first_stage": False, "downsample_in_bottleneck": False, "num_channels": 3,
    }  # fmt: skip
    return _residual(parts, "resnet", config, hf_conv.RESNET, depths)


def _regnet(parts: Parts) -> Proposal:
    made = stages_of(parts)
    group = max(stage.group_width for stage in made)
    if any(stage.width != stage.group_width * max(1, stage.width // group) for stage in made):
        raise MiradaError(
            "transformers' RegNet has groups of one width in all its stages, unlike this one: it cannot be exported."
        )
    config = {
        "embedding_size": parts.options["stem_width"], "hidden_sizes": [stage.width for stage in made],
        "depths": [stage.depth for stage in made], "groups_width": group, "layer_type": "y", "hidden_act": "relu",
        "downsample_in_first_stage": True, "num_channels": 3,
    }  # fmt: skip
    return _residual(parts, "regnet", config, hf_conv.REGNET, [stage.depth for stage in made])


def _residual(parts: Parts, kind: str, config: dict[str, Any], names: dict[str, str], depths: list[int]) -> Proposal:
    if parts.design.projection is not None:
        raise MiradaError(f"transformers' {BASES[kind]} has no projection: it cannot be exported.")
    prefix = f"{kind}." if parts.design.classes is not None else ""
    stem = f"{prefix}embedder.embedder"
    layout = Layout((f"{stem}.convolution", f"{stem}.normalization"), "", names, "classifier.1")
    starts = [[f"{prefix}encoder.stages.{stage}.layers.{layer}" for layer in range(depth)]
              for stage, depth in enumerate(depths)]  # fmt: skip
    telltales = residual_shapes(parts, layout, starts)
    if parts.design.classes is not None:
        telltales["classifier.1.weight"] = (parts.classes, parts.dim)
    return _proposal(parts, kind, config, telltales)
