"""transformers' CLIP, SigLIP and SigLIP 2: both towers, or the image tower alone.

As in transformers 5.24. Its image feature is what `get_image_features` gives, or for an image tower alone its
`image_embeds`, else its `pooler_output`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mirada.checkpoints.files import Files
from mirada.checkpoints.pixels import from_hf, hf_config
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import JOIN, How, Row, Shapes, Table, join, shape_added, then
from mirada.checkpoints.two_towers import logit_rows
from mirada.checkpoints.vit import side_of, vit_name
from mirada.checkpoints.vocabularies import from_merges, transformers_tokenizer
from mirada.errors import MiradaError
from mirada.model import Design, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign
from mirada.tokenizer import TokenizerDesign

__all__ = ["plan_clip", "plan_clip_vision", "plan_siglip", "plan_siglip2", "plan_siglip2_vision", "plan_siglip_vision"]

Config = dict[str, Any]

ACTIVATIONS = {
    "quick_gelu": "quickgelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
}  # fmt: skip

# What transformers assumes where a config.json says nothing.
CLIP_VISION: Config = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "projection_dim": 512,
}  # fmt: skip
CLIP_TEXT: Config = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}  # fmt: skip
SIGLIP_VISION: Config = CLIP_VISION | {
    "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True,
    "num_patches": 256,
}  # fmt: skip
SIGLIP_TEXT: Config = {
    "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6, "projection_size": None,
}  # fmt: skip


def plan_clip(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `CLIPModel` (Radford et al. 2021, arXiv:2103.00020)."""
    _refuse_others(config, "CLIPModel")
    vision, text = _part(config, "vision", CLIP_VISION), _part(config, "text", CLIP_TEXT)
    dim = config.get("projection_dim", 512)
    tokenizer, vocabulary = _clip_tokenizer(text, files)
    # Config files from before 2023 say 2 for the end token, which it never was: transformers then takes the largest id.
    legacy = text["eos_token_id"] == 2
    design = TextDesign(
        tokenizer=tokenizer, pooling="largest" if legacy else "end", end=None if legacy else text["eos_token_id"],
        causal=True, dim=dim, projection="linear", **_text_sizes(text),
    )  # fmt: skip
    table = [*_clip_vision(shapes), *_text_rows(), ("text_projection.weight", "text.projection.weight")]
    return _plan("clip", _clip_vit(vision), vision, files, [*table, *logit_rows(shapes)], vocabulary,
                 projection=Projection(dim), text=design)  # fmt: skip


def plan_clip_vision(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `CLIPVisionModelWithProjection` and `CLIPVisionModel`."""
    vision = CLIP_VISION | config
    projected = "visual_projection.weight" in shapes
    return _plan("clip", _clip_vit(vision), vision, files, _clip_vision(shapes),
                 projection=Projection(vision["projection_dim"]) if projected else None)  # fmt: skip


def plan_siglip(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `SiglipModel`: SigLIP (Zhai et al. 2023, arXiv:2303.15343), and SigLIP 2 (Tschannen et al. 2025,
    arXiv:2502.14786) for images of one size; and for `SiglipForImageClassification`."""
    if config.get("architectures") == ["SiglipForImageClassification"]:
        return _siglip_classifier(config, files, shapes)
    _refuse_others(config, "SiglipModel")
    vision, text = _part(config, "vision", SIGLIP_VISION), _part(config, "text", SIGLIP_TEXT)
    design, vocabulary = _siglip_text(text, files)
    table = [*_siglip_vision(shapes), *_text_rows(), ("text_model.head.{}", "text.projection.{}"), *logit_rows(shapes)]
    return _plan("siglip", _siglip_vit(vision, "plain"), vision, files, table, vocabulary, text=design)


def plan_siglip_vision(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `SiglipVisionModel`. Without its pooling its image feature is the mean patch."""
    vision = SIGLIP_VISION | config
    architecture = _siglip_vit(vision, "plain") if vision["vision_use_head"] else _average_vit(vision)
    return _plan("siglip", architecture, vision, files, _siglip_vision(shapes))


def _siglip_classifier(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `SiglipForImageClassification`, whose classifier reads the mean patch, never the pooling."""
    vision, names = _part(config, "vision", SIGLIP_VISION), config.get("id2label") or {}
    pooling: list[Row] = [(f"vision_model.head{'.{}' * parts}", None) for parts in (1, 2, 3)]
    weight = shapes.get("classifier.weight")
    classes = None if weight is None else tuple(str(names.get(str(n), n)) for n in range(weight[0]))
    table = [*pooling, *_siglip_vision(shapes), ("classifier.{}", "head.{}")]
    return _plan("siglip", _average_vit(vision), vision, files, table, classes=classes)


def plan_siglip2(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `Siglip2Model`: SigLIP 2 for images of any aspect ratio (NaFlex).

    Pixels are exact for tensors (B, 3, H, W) of any size that divides into patches. Pictures are not: transformers
    keeps their aspect ratio, here they become squares of as many patches.
    """
    _refuse_others(config, "Siglip2Model")
    vision, text = _naflex(_part(config, "vision", SIGLIP_VISION)), _part(config, "text", SIGLIP_TEXT)
    design, vocabulary = _siglip_text(text, files)
    table = [*_siglip_vision(shapes, vision), *_text_rows(), ("text_model.head.{}", "text.projection.{}")]
    return _plan("siglip2", _siglip_vit(vision, "bilinear"), vision, files, [*table, *logit_rows(shapes)], vocabulary,
                 text=design)  # fmt: skip


def plan_siglip2_vision(config: Config, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `Siglip2VisionModel`; see `plan_siglip2`."""
    vision = _naflex(SIGLIP_VISION | config)
    return _plan("siglip2", _siglip_vit(vision, "bilinear"), vision, files, _siglip_vision(shapes, vision))


# --- designs -----------------------------------------------------------------------------------------------------


def _plan(
    kind: str, architecture: str, vision: Config, files: Files | None, table: Table, vocabulary: str | None = None,
    **more: Any,
) -> Plan:  # fmt: skip
    pixels = None if files is None else hf_config(files)
    provenance = {}
    if kind == "siglip2":
        side = vision["image_size"]
        pixels = {key: value for key, value in (pixels or {}).items() if key in ("image_mean", "image_std", "resample")}
        pixels = {"image_processor_type": "SiglipImageProcessor", "resample": 2, "size": side} | pixels
        provenance["preprocess"] = f"squares of {side} pixels; the original keeps the aspect ratio (NaFlex)"
    elif pixels is None:
        provenance["preprocess"] = f"assumed: there was no preprocessor_config.json for {kind}"
    preprocess: Preprocess = from_hf(pixels, kind, side_of(vision, "image_size"))
    return Plan(Design(architecture, preprocess, provenance=provenance, **more), table, vocabulary)


def _part(config: Config, name: str, defaults: Config) -> Config:
    """One tower's configuration. Old files of CLIP have it under two names, of which the second counts, with the
    defaults for what it leaves out."""
    old = config.get(f"{name}_config_dict")
    return defaults | (config.get(f"{name}_config") or {}) | ({} if old is None else defaults | old)


def _refuse_others(config: Config, wanted: str) -> None:
    classes = config.get("architectures") or [wanted]
    if wanted not in classes:
        raise MiradaError(
            f"{classes[0]} is not a model of image and text features, as {wanted} is, and cannot be loaded exactly: "
            f"give a {wanted}, or its vision model."
        )


def _activation(config: Config) -> Any:
    if config["hidden_act"] not in ACTIVATIONS:
        raise MiradaError(
            f"transformers' activation {config['hidden_act']!r} is not one of {', '.join(ACTIVATIONS)}, which Mirada "
            "knows."
        )
    return ACTIVATIONS[config["hidden_act"]]


def _vit(config: Config, **options: Any) -> str:
    if config["num_channels"] != 3:
        raise MiradaError(f"This model sees {config['num_channels']} channels: Mirada loads models of three.")
    return vit_name(
        config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"],
        config["intermediate_size"], side_of(config, "patch_size"), image_size=side_of(config, "image_size"),
        activation=_activation(config), epsilon=config["layer_norm_eps"], **options,
    )  # fmt: skip


def _clip_vit(config: Config) -> str:
    return _vit(config, pre_norm=True, resample="plain")


def _siglip_vit(config: Config, resample: str) -> str:
    if not config["vision_use_head"]:
        raise MiradaError("This SigLIP has no pooling (vision_use_head is false), and so no image feature.")
    return _vit(config, pooling="attention", resample=resample)


def _average_vit(config: Config) -> str:
    return _vit(config, pooling="average", resample="plain")


def _naflex(config: Config) -> Config:
    """With the size of the square image that has the patches of the position table."""
    side = round(config["num_patches"] ** 0.5)
    if side**2 != config["num_patches"]:
        raise MiradaError(f"This SigLIP 2 has positions for {config['num_patches']} patches, which are no square.")
    patch = side_of(config, "patch_size")
    return config | {"patch_size": patch, "image_size": side * patch}


def _text_sizes(config: Config) -> Config:
    return {
        "vocabulary_size": config["vocab_size"], "width": config["hidden_size"], "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"], "hidden": config["intermediate_size"],
        "activation": _activation(config), "epsilon": config["layer_norm_eps"],
    }  # fmt: skip


def _siglip_text(config: Config, files: Files | None) -> tuple[TextDesign, str | None]:
    tokenizer, vocabulary = transformers_tokenizer(files, "siglip", config["max_position_embeddings"])
    dim = config["projection_size"] or config["hidden_size"]
    return TextDesign(
        tokenizer=tokenizer, pooling="last", causal=False, dim=dim, projection="bias", bias=True, **_text_sizes(config)
    ), vocabulary


def _clip_tokenizer(config: Config, files: Files | None) -> tuple[TokenizerDesign, str | None]:
    design, vocabulary = transformers_tokenizer(files, "clip", config["max_position_embeddings"])
    if vocabulary is None and config["vocab_size"] == 49408 and config["eos_token_id"] in (2, 49407):
        vocabulary = from_merges()  # the ids of all published CLIP models
    return design, vocabulary


# --- tables ------------------------------------------------------------------------------------------------------


def _encoder_rows(there: str, here: str) -> list[Row]:
    layer, block, projections = f"{there}encoder.layers.{{}}", f"{here}.blocks.{{}}", ("q", "k", "v")
    return [
        (tuple(f"{layer}.self_attn.{name}_proj.{{}}" for name in projections), f"{block}.attention.qkv.{{}}", JOIN),
        (f"{layer}.self_attn.out_proj.{{}}", f"{block}.attention.proj.{{}}"),
        (f"{layer}.layer_norm1.{{}}", f"{block}.norm1.{{}}"),
        (f"{layer}.layer_norm2.{{}}", f"{block}.norm2.{{}}"),
        (f"{layer}.mlp.fc1.{{}}", f"{block}.feed_forward.0.{{}}"),
        (f"{layer}.mlp.fc2.{{}}", f"{block}.feed_forward.2.{{}}"),
    ]


def _prefix(shapes: Shapes) -> str:
    """An image tower that was saved alone has no name of its own, or, before transformers 5, it has."""
    return "vision_model." if any(name.startswith("vision_model.") for name in shapes) else ""


def _clip_vision(shapes: Shapes) -> list[Row]:
    tower = _prefix(shapes)
    return [
        (f"{tower}embeddings.position_ids", None),
        (f"{tower}embeddings.class_embedding", "backbone.prefix", shape_added(0, 1)),
        (f"{tower}embeddings.patch_embedding.weight", "backbone.stem.weight"),
        (f"{tower}embeddings.position_embedding.weight", ("backbone.class_position", "backbone.position"),
         then(shape_added(0), join(1))),
        (f"{tower}pre_layrnorm.{{}}", "backbone.pre_norm.{}"),
        *_encoder_rows(tower, "backbone"),
        (f"{tower}post_layernorm.{{}}", "backbone.norm.{}"),
        ("visual_projection.weight", "projection.weight"),
    ]  # fmt: skip


def _siglip_vision(shapes: Shapes, naflex: Config | None = None) -> list[Row]:
    tower = _prefix(shapes)
    stem: Row = (f"{tower}embeddings.patch_embedding.weight", "backbone.stem.weight")
    if naflex is not None:
        stem = (*stem, _from_patches(naflex["patch_size"]))
    return [
        (f"{tower}embeddings.position_ids", None),
        stem,
        (f"{tower}embeddings.patch_embedding.bias", "backbone.stem.bias"),
        (f"{tower}embeddings.position_embedding.weight", "backbone.position", shape_added(0)),
        *_encoder_rows(tower, "backbone"),
        (f"{tower}post_layernorm.{{}}", "backbone.norm.{}"),
        (f"{tower}head.probe", "backbone.pool.query"),
        (f"{tower}head.attention.in_proj_weight",
         ("backbone.pool.project_query.weight", "backbone.pool.key_value.weight"), join()),
        (f"{tower}head.attention.in_proj_bias",
         ("backbone.pool.project_query.bias", "backbone.pool.key_value.bias"), join()),
        (f"{tower}head.attention.out_proj.{{}}", "backbone.pool.proj.{}"),
        (f"{tower}head.layernorm.{{}}", "backbone.pool.norm.{}"),
        (f"{tower}head.mlp.fc1.{{}}", "backbone.pool.feed_forward.0.{}"),
        (f"{tower}head.mlp.fc2.{{}}", "backbone.pool.feed_forward.2.{}"),
    ]  # fmt: skip


def _from_patches(side: int) -> How:
    """A linear layer on flat patches (rows, columns, colours) there is a convolution here."""

    def read(tensors: list[Tensor], _: Any) -> list[Tensor]:
        return [t.reshape(len(t), side, side, -1).permute(0, 3, 1, 2).contiguous() for t in tensors]

    def write(tensors: list[Tensor], _: int) -> list[Tensor]:
        return [t.permute(0, 2, 3, 1).flatten(1) for t in tensors]

    return How(read, write)


def _text_rows() -> list[Row]:
    return [
        ("text_model.embeddings.position_ids", None),
        ("text_model.embeddings.token_embedding.weight", "text.tokens.weight"),
        ("text_model.embeddings.position_embedding.weight", "text.position"),
        *_encoder_rows("text_model.", "text"),
        ("text_model.final_layer_norm.{}", "text.norm.{}"),
    ]


BY_MODEL_TYPE: dict[str, Callable[[Config, Files | None, Shapes], Plan]] = {
    "clip": plan_clip, "clip_vision_model": plan_clip_vision, "siglip": plan_siglip,
    "siglip_vision_model": plan_siglip_vision, "siglip2": plan_siglip2, "siglip2_vision_model": plan_siglip2_vision,
}  # fmt: skip
