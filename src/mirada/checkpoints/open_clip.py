"""open_clip's models of a ViT and a text transformer of its own (github.com/mlfoundations/open_clip, 3.3).

That is CLIP as OpenAI, LAION, DataComp, DFN and MetaCLIP trained it, and SigLIP, whose image tower is timm's. What has
another network on either side (ResNets, ConvNeXt, EVA, BERT and so on) or more of it (CoCa) is refused with the reason.
"""

import re
from collections.abc import Mapping
from typing import Any

from mirada.checkpoints.files import Files
from mirada.checkpoints.open_clip_names import QUICK, is_quick, model_config, preprocess_config, repository
from mirada.checkpoints.pixels import from_open_clip
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import TRANSPOSE, Row, Shapes, join, shape_added, then
from mirada.checkpoints.timm import TANH
from mirada.checkpoints.two_towers import logit_rows
from mirada.checkpoints.vit import vit_name
from mirada.checkpoints.vocabularies import transformers_tokenizer
from mirada.errors import MiradaError
from mirada.model import Design, Projection
from mirada.preprocess import Preprocess
from mirada.text import TextDesign
from mirada.tokenizer import CANONICAL, CLIP_CLEANING, Step, TokenizerDesign

__all__ = ["plan", "repository", "tensor_rows", "two_tower_design"]

Config = Mapping[str, Any]

# timm's ViTs of SigLIP: width, layers, heads, feed-forward width.
TIMM_SIZES = {
    "base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096), "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}  # fmt: skip
TIMM_SIGLIP = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_(\d+)")

WHITESPACE: tuple[Step, ...] = ("fix", "unescape", "strip", "spaces")
CLEANING: dict[str, tuple[Step, ...]] = {"lower": CLIP_CLEANING, "canonicalize": CANONICAL, "whitespace": WHITESPACE}
POOLING: dict[str, Any] = {"argmax": "largest", "first": "first", "last": "last", "eos": "end"}

# What a configuration may say, and what it must not, because it makes another network.
VISION_KNOWN = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "pool_type",
                "patch_dropout", "pos_embed_type", "output_tokens", "act_kwargs", "norm_kwargs", "attn_pooler_queries",
                "attn_pooler_heads", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj",
                "timm_proj_bias", "timm_drop", "timm_drop_path"}  # fmt: skip
TEXT_KNOWN = {"context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "width", "heads", "layers",
              "mlp_ratio", "pad_id", "eos_id", "no_causal_mask", "pool_type", "proj_bias", "proj_type", "output_tokens",
              "act_kwargs", "norm_kwargs", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type",
              "final_ln_after_pool"}  # fmt: skip
WHY = {
    "multimodal_cfg": "a CoCa, which writes captions with a third tower", "hf_model_name": "with a text tower of "
    "transformers", "attentional_pool": "with attentional pooling", "embed_cls": "with a class token in its texts",
    "no_ln_pre": "without a norm before its first block, as CLIPA is",
}  # fmt: skip


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for a folder or repository that open_clip wrote, or, without `files`, for `NAME[/TAG]` by its name."""
    config = None if files is None else files.json("open_clip_config.json")
    if config is None:
        architecture, _, tag = name.partition("/")
        config = {"model_cfg": model_config(architecture), "preprocess_cfg": preprocess_config(architecture, tag)}
    model, pixels = dict(config.get("model_cfg") or {}), config.get("preprocess_cfg") or {}
    if not isinstance(model.get("vision_cfg"), dict) or not isinstance(model.get("text_cfg"), dict):
        raise MiradaError("The open_clip_config.json has no model_cfg with vision_cfg and text_cfg: is it whole?")
    if is_quick(name) if files is None else QUICK.fullmatch(getattr(files, "repo", "")):
        model["quick_gelu"] = True
    tokenizer, vocabulary = _tokenizer(model["text_cfg"], files)
    preprocess = from_open_clip(pixels, model["vision_cfg"].get("image_size", 224))
    return Plan(two_tower_design(model, preprocess, tokenizer), tensor_rows(model, shapes), vocabulary)


def two_tower_design(model: Config, preprocess: Preprocess, tokenizer: TokenizerDesign) -> Design:
    """The design of open_clip's `model_cfg`."""
    vision, text, quick = model["vision_cfg"], model["text_cfg"], bool(model.get("quick_gelu"))
    _refuse_others(model)
    dim = model["embed_dim"]
    projection: Projection | None = Projection(dim)
    if vision.get("timm_model_name"):
        architecture = _timm_vit(vision)
        linear = vision.get("timm_proj", "linear") == "linear"
        projection = Projection(dim, bool(vision.get("timm_proj_bias"))) if linear else None
    else:
        architecture = _vit(vision, quick)
    pooling = POOLING[text.get("pool_type", "argmax")]
    width = text.get("width", 512)
    tower = TextDesign(
        tokenizer=tokenizer, vocabulary_size=text.get("vocab_size", 49408), width=width, depth=text.get("layers", 12),
        num_heads=text.get("heads", 8), hidden=int(width * text.get("mlp_ratio", 4.0)), dim=dim,
        activation=_activation(text, quick), epsilon=_epsilon(text), causal=not text.get("no_causal_mask", False),
        pooling=pooling, end=text.get("eos_id", 2) if pooling == "end" else None,
        projection="none" if text.get("proj_type") == "none" else "bias" if text.get("proj_bias") else "linear",
        bias=model.get("init_logit_bias") is not None,
    )  # fmt: skip
    return Design(architecture, preprocess, projection=projection, text=tower)


def _vit(vision: Config, quick: bool) -> str:
    width, layers = vision.get("width", 768), vision.get("layers", 12)
    if not isinstance(layers, int):
        raise MiradaError(
            "This open_clip model sees with a ResNet, and Mirada knows its ViTs only: choose one of those."
        )
    return vit_name(
        width, layers, width // vision.get("head_width", 64), int(width * vision.get("mlp_ratio", 4.0)),
        _square(vision.get("patch_size", 16)), image_size=_square(vision.get("image_size", 224)), pre_norm=True,
        activation=_activation(vision, quick), epsilon=_epsilon(vision), layer_scale=vision.get("ls_init_value"),
    )  # fmt: skip


def _timm_vit(vision: Config) -> str:
    name = vision["timm_model_name"]
    match = TIMM_SIGLIP.fullmatch(name)
    if not match or vision.get("timm_pool") != "map" or vision.get("timm_proj") not in ("linear", "none"):
        raise MiradaError(
            f"This open_clip model sees with timm's {name} (pool {vision.get('timm_pool')!r}, projection "
            f"{vision.get('timm_proj')!r}), and of timm's image towers Mirada knows SigLIP's only."
        )
    size = TIMM_SIZES[match[1]]
    return vit_name(
        *size, int(match[2]), image_size=_square(vision.get("image_size", int(match[3]))), pooling="attention",
        activation="gelu_tanh" if TANH.match(name) else None,
    )  # fmt: skip


def _activation(tower: Config, quick: bool) -> Any:
    options = tower.get("act_kwargs") or {}
    if quick and not options:
        return "quickgelu"
    if not quick and options in ({}, {"approximate": "none"}, {"approximate": "tanh"}):
        return "gelu_tanh" if options.get("approximate") == "tanh" else "gelu"
    raise MiradaError(f"This open_clip model has an activation with {options}, which Mirada does not know.")


def _epsilon(tower: Config) -> float:
    options = tower.get("norm_kwargs") or {}
    if options.keys() - {"eps"}:
        raise MiradaError(f"This open_clip model has norms with {options}, which Mirada does not know.")
    return float(options.get("eps", 1e-5))


def _square(side: Any) -> int:
    if isinstance(side, (list, tuple)) and len(set(side)) == 1:
        side = side[0]
    if not isinstance(side, int):
        raise MiradaError(f"This open_clip model sees {side}, and Mirada knows square images and patches only.")
    return side


def _tokenizer(text: Config, files: Files | None) -> tuple[TokenizerDesign, str | None]:
    options, context = dict(text.get("tokenizer_kwargs") or {}), text.get("context_length", 77)
    hugging = text.get("hf_tokenizer_name")
    clean = options.pop("clean", "whitespace" if hugging else "lower")
    if options or text.get("tokenizer_mode") or clean not in CLEANING:
        raise MiradaError(f"This open_clip model's tokenizer does {options or clean!r}, which Mirada does not know.")
    if not hugging:
        return TokenizerDesign(context, CLEANING[clean], markers=("<start_of_text>", "<end_of_text>")), None
    return transformers_tokenizer(files, "open_clip", context, CLEANING[clean])


def _refuse_others(model: Config) -> None:
    """Raise `MiradaError` for what makes another network of a model than the tables below know."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    odd = [key for key in ("multimodal_cfg",) if model.get(key)]
    odd += [key for key, value in vision.items() if key not in VISION_KNOWN and value]
    odd += [key for key, value in text.items() if key not in TEXT_KNOWN and value]
    if odd:
        because = next((WHY[key] for key in odd if key in WHY), f"with {', '.join(odd)}")
        raise MiradaError(f"This open_clip model is one {because}, and Mirada cannot load it exactly.")
    if vision.get("pool_type", "tok") != "tok" or text.get("pool_type", "argmax") not in POOLING:
        raise MiradaError(
            f"This open_clip model pools images by {vision.get('pool_type', 'tok')!r} and texts by "
            f"{text.get('pool_type', 'argmax')!r}, which Mirada does not know."
        )


# --- tables ------------------------------------------------------------------------------------------------------


def tensor_rows(model: Config, shapes: Shapes) -> list[Row]:
    """The rows of both towers, as open_clip's CLIP and CustomTextCLIP, and OpenAI's own files, name them."""
    tower = "text." if "text.positional_embedding" in shapes else ""
    vision = _trunk_rows() if model["vision_cfg"].get("timm_model_name") else _visual_rows()
    return [
        *vision,
        (f"{tower}token_embedding.weight", "text.tokens.weight"),
        (f"{tower}positional_embedding", "text.position"),
        *_block_rows(f"{tower}transformer", "text"),
        (f"{tower}ln_final.{{}}", "text.norm.{}"),
        (f"{tower}text_projection.{{}}", "text.projection.{}")
        if f"{tower}text_projection.weight" in shapes
        else (f"{tower}text_projection", "text.projection.weight", TRANSPOSE),
        (f"{tower}attn_mask", None),
        # Numbers that OpenAI's TorchScript files keep among their tensors.
        (("input_resolution", "context_length", "vocab_size"), None),
        *logit_rows(shapes),
    ]


def _visual_rows() -> list[Row]:
    return [
        ("visual.class_embedding", "backbone.prefix", shape_added(0, 1)),
        ("visual.conv1.weight", "backbone.stem.weight"),
        ("visual.positional_embedding", ("backbone.class_position", "backbone.position"),
         then(shape_added(0), join(1))),
        ("visual.ln_pre.{}", "backbone.pre_norm.{}"),
        *_block_rows("visual.transformer", "backbone"),
        ("visual.ln_post.{}", "backbone.norm.{}"),
        ("visual.proj", "projection.weight", TRANSPOSE),
    ]  # fmt: skip


def _block_rows(there: str, here: str) -> list[Row]:
    layer, block = f"{there}.resblocks.{{}}", f"{here}.blocks.{{}}"
    return [
        (f"{layer}.attn.in_proj_weight", f"{block}.attention.qkv.weight"),
        (f"{layer}.attn.in_proj_bias", f"{block}.attention.qkv.bias"),
        (f"{layer}.attn.out_proj.{{}}", f"{block}.attention.proj.{{}}"),
        (f"{layer}.ln_1.{{}}", f"{block}.norm1.{{}}"),
        (f"{layer}.ln_2.{{}}", f"{block}.norm2.{{}}"),
        (f"{layer}.mlp.c_fc.{{}}", f"{block}.feed_forward.0.{{}}"),
        (f"{layer}.mlp.c_proj.{{}}", f"{block}.feed_forward.2.{{}}"),
        (f"{layer}.ls_1.gamma", f"{block}.scale1.gain"),
        (f"{layer}.ls_2.gamma", f"{block}.scale2.gain"),
    ]


def _trunk_rows() -> list[Row]:
    """timm's ViT of SigLIP."""
    trunk, block = "visual.trunk", "backbone.blocks.{}"
    return [
        (f"{trunk}.patch_embed.proj.{{}}", "backbone.stem.{}"),
        (f"{trunk}.pos_embed", "backbone.position"),
        (f"{trunk}.blocks.{{}}.norm1.{{}}", f"{block}.norm1.{{}}"),
        (f"{trunk}.blocks.{{}}.attn.qkv.{{}}", f"{block}.attention.qkv.{{}}"),
        (f"{trunk}.blocks.{{}}.attn.proj.{{}}", f"{block}.attention.proj.{{}}"),
        (f"{trunk}.blocks.{{}}.norm2.{{}}", f"{block}.norm2.{{}}"),
        (f"{trunk}.blocks.{{}}.mlp.fc1.{{}}", f"{block}.feed_forward.0.{{}}"),
        (f"{trunk}.blocks.{{}}.mlp.fc2.{{}}", f"{block}.feed_forward.2.{{}}"),
        (f"{trunk}.norm.{{}}", "backbone.norm.{}"),
        (f"{trunk}.attn_pool.latent", "backbone.pool.query"),
        (f"{trunk}.attn_pool.q.{{}}", "backbone.pool.project_query.{}"),
        (f"{trunk}.attn_pool.kv.{{}}", "backbone.pool.key_value.{}"),
        (f"{trunk}.attn_pool.proj.{{}}", "backbone.pool.proj.{}"),
        (f"{trunk}.attn_pool.norm.{{}}", "backbone.pool.norm.{}"),
        (f"{trunk}.attn_pool.mlp.fc1.{{}}", "backbone.pool.feed_forward.0.{}"),
        (f"{trunk}.attn_pool.mlp.fc2.{{}}", "backbone.pool.feed_forward.2.{}"),
        ("visual.head.proj.{}", "projection.{}"),
    ]
