"""open_clip's names (3.3): where published weights are on the hub, and what a name alone says of a model."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from mirada.errors import MiradaError

__all__ = ["PRETRAINED", "QUICK", "is_quick", "model_config", "preprocess_config", "repository"]

# Where the weights `name/tag` are on the hub; the first tag of a name is taken where none is given.
PRETRAINED: dict[str, dict[str, str]] = {
    "ViT-B-32": {
        "laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "openai": "timm/vit_base_patch32_clip_224.openai",
        "laion2b_e16": "timm/vit_base_patch32_clip_224.laion2b_e16",
        "laion400m_e31": "timm/vit_base_patch32_clip_224.laion400m_e31",
        "laion400m_e32": "timm/vit_base_patch32_clip_224.laion400m_e32",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        "metaclip_400m": "timm/vit_base_patch32_clip_224.metaclip_400m",
        "metaclip_fullcc": "timm/vit_base_patch32_clip_224.metaclip_2pt5b",
    },
    "ViT-B-32-256": {"datacomp_s34b_b86k": "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"},
    "ViT-B-16": {
        "laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        "openai": "timm/vit_base_patch16_clip_224.openai",
        "laion400m_e31": "timm/vit_base_patch16_clip_224.laion400m_e31",
        "laion400m_e32": "timm/vit_base_patch16_clip_224.laion400m_e32",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        "datacomp_l_s1b_b8k": "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K",
        "dfn2b": "apple/DFN2B-CLIP-ViT-B-16",
        "metaclip_400m": "timm/vit_base_patch16_clip_224.metaclip_400m",
        "metaclip_fullcc": "timm/vit_base_patch16_clip_224.metaclip_2pt5b",
    },
    "ViT-B-16-plus-240": {"laion400m_e31": "timm/vit_base_patch16_plus_clip_240.laion400m_e31"},
    "ViT-L-14": {
        "laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        "openai": "timm/vit_large_patch14_clip_224.openai",
        "laion400m_e31": "timm/vit_large_patch14_clip_224.laion400m_e31",
        "laion400m_e32": "timm/vit_large_patch14_clip_224.laion400m_e32",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        "dfn2b": "apple/DFN2B-CLIP-ViT-L-14",
        "dfn2b_s39b": "apple/DFN2B-CLIP-ViT-L-14-39B",
        "metaclip_400m": "timm/vit_large_patch14_clip_224.metaclip_400m",
        "metaclip_fullcc": "timm/vit_large_patch14_clip_224.metaclip_2pt5b",
    },
    "ViT-L-14-336": {"openai": "timm/vit_large_patch14_clip_336.openai"},
    "ViT-H-14": {
        "laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "dfn5b": "apple/DFN5B-CLIP-ViT-H-14",
        "metaclip_altogether": "timm/vit_huge_patch14_clip_224.metaclip_altogether",
        "metaclip_fullcc": "timm/vit_huge_patch14_clip_224.metaclip_2pt5b",
    },
    "ViT-H-14-378": {"dfn5b": "apple/DFN5B-CLIP-ViT-H-14-378"},
    "ViT-g-14": {
        "laion2b_s34b_b88k": "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
        "laion2b_s12b_b42k": "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
    },
    "ViT-bigG-14": {
        "laion2b_s39b_b160k": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        "metaclip_fullcc": "timm/vit_gigantic_patch14_clip_224.metaclip_2pt5b",
    },
    **{f"ViT-{name}": {"metaclip2_worldwide": f"timm/vit_{repo}.metaclip2_worldwide"} for name, repo in (
        ("H-14-worldwide", "huge_patch14_clip_224"), ("H-14-worldwide-378", "huge_patch14_clip_378"),
        ("bigG-14-worldwide", "gigantic_patch14_clip_224"), ("bigG-14-worldwide-378", "gigantic_patch14_clip_378"),
    )},
    **{f"ViT-{name}": {"webli": f"timm/ViT-{name}"} for name in (
        "B-16-SigLIP", "B-16-SigLIP-256", "B-16-SigLIP-384", "B-16-SigLIP-512", "B-16-SigLIP-i18n-256",
        "L-16-SigLIP-256", "L-16-SigLIP-384", "SO400M-14-SigLIP", "SO400M-14-SigLIP-384",
        "SO400M-16-SigLIP-i18n-256", "B-32-SigLIP2-256", "B-16-SigLIP2", "B-16-SigLIP2-256", "B-16-SigLIP2-384",
        "B-16-SigLIP2-512", "L-16-SigLIP2-256", "L-16-SigLIP2-384", "L-16-SigLIP2-512", "SO400M-14-SigLIP2",
        "SO400M-14-SigLIP2-378", "SO400M-16-SigLIP2-256", "SO400M-16-SigLIP2-384", "SO400M-16-SigLIP2-512",
        "gopt-16-SigLIP2-256", "gopt-16-SigLIP2-384",
    )},
}  # fmt: skip

# Trained with QuickGELU, whatever the name and an old config say; open_clip only warns there.
QUICK = re.compile(
    r".*(\.openai|\.metaclip_400m|\.metaclip_2pt5b|patch32_clip_224\.laion400m_e3[12])"
    r"|timm/vit_huge_patch14_clip_224\.metaclip2_worldwide"
    r"|apple/DFN(2B-CLIP-ViT-[BL]-1[46]|5B-CLIP-ViT-H-14(-378)?)"
)

# Image tower: layers, width, width of a head, feed-forward ratio; text tower: width, heads, layers; feature.
SIZES = {
    "S": (12, 384, 64, 4.0, 384, 6, 12, 384), "M": (12, 512, 64, 4.0, 512, 8, 12, 512),
    "B": (12, 768, 64, 4.0, 512, 8, 12, 512), "B-plus": (12, 896, 64, 4.0, 640, 10, 12, 640),
    "L": (24, 1024, 64, 4.0, 768, 12, 12, 768), "H": (32, 1280, 80, 4.0, 1024, 16, 24, 1024),
    "g": (40, 1408, 88, 4.3637, 1024, 16, 24, 1024), "bigG": (48, 1664, 104, 4.9231, 1280, 20, 32, 1280),
}  # fmt: skip
# Text tower: width, heads, layers, feed-forward ratio; feature; timm's name of the image tower.
SIGLIP_SIZES = {
    "B": (768, 12, 12, 4.0, 768, "base"), "L": (1024, 16, 24, 4.0, 1024, "large"),
    "SO400M": (1152, 16, 27, 3.7362, 1152, "so400m"), "gopt": (1152, 16, 27, 3.7362, 1536, "giantopt"),
}  # fmt: skip


def repository(name: str) -> str:
    """Where the weights of `NAME[/TAG]` are on the hub; `hf-hub:ORG/NAME` is a repository itself."""
    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:")
    architecture, _, tag = name.partition("/")
    tags = PRETRAINED.get(architecture.removesuffix("-quickgelu"), {})
    if architecture.endswith("-quickgelu"):
        tags = {tag: repo for tag, repo in tags.items() if QUICK.fullmatch(repo)}
    if not tags:
        _refuse_name(architecture)
        raise MiradaError(
            f"There are no published weights of open_clip's {architecture!r} that Mirada knows{_near(architecture)}"
        )
    if not tag:
        return next(iter(tags.values()))
    if tag not in tags:
        raise MiradaError(
            f"open_clip's {architecture!r} has no weights {tag!r} that Mirada knows: choose one of {', '.join(tags)}, "
            "or a repository of the hub with open_clip:hf-hub:ORG/NAME."
        )
    return tags[tag]


def model_config(architecture: str) -> dict[str, Any]:
    """The `model_cfg` that open_clip has under this name, for weights that come without one."""
    if match := re.fullmatch(r"ViT-(\w+)-(\d+)(-plus)?(-worldwide)?(?:-(\d{3}))?(-quickgelu)?", architecture):
        size, patch, plus, worldwide, side, quick = match.groups()
        row = SIZES.get(size + (plus or ""))
        if row is not None and (not worldwide or size in ("H", "bigG")):
            layers, width, head, ratio, text_width, heads, text_layers, dim = row
            metaclip2 = {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "vocab_size": 901629}
            return {
                "embed_dim": dim, "quick_gelu": quick is not None,
                "vision_cfg": {"image_size": int(side or 224), "layers": layers, "width": width, "head_width": head,
                               "mlp_ratio": ratio, "patch_size": int(patch)},
                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": text_width, "heads": heads,
                             "layers": text_layers} | (metaclip2 if worldwide else {}),
            }  # fmt: skip
    if match := re.fullmatch(r"ViT-(\w+)-(\d+)-SigLIP(2?)(-i18n)?(?:-(\d{3}))?", architecture):
        size, patch, second, many_languages, side = match.groups()
        if siglip := SIGLIP_SIZES.get(size):
            return _siglip_config(*siglip, patch, bool(second), bool(many_languages), int(side or 224))
    _refuse_name(architecture)
    raise MiradaError(
        f"open_clip's {architecture!r} is not among the models that Mirada knows by name{_near(architecture)}"
    )


def _siglip_config(
    width: int, heads: int, layers: int, ratio: float, dim: int, timm: str, patch: str, second: bool,
    many_languages: bool, side: int,
) -> dict[str, Any]:  # fmt: skip
    text: dict[str, Any] = {
        "context_length": 16 if (timm, patch, side, second) == ("so400m", "14", 224, False) else 64,
        "vocab_size": 256000 if second else 250000 if many_languages else 32000,
        "hf_tokenizer_name": "its own", "tokenizer_kwargs": {"clean": "canonicalize"}, "width": width, "heads": heads,
        "layers": layers, "mlp_ratio": ratio, "no_causal_mask": True, "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6}, "proj_bias": True,
    }  # fmt: skip
    if many_languages and timm == "so400m":
        text |= {"proj_type": "none", "proj_bias": False}
    if second:
        text["act_kwargs"] = {"approximate": "tanh"}
    vision = {
        "image_size": side, "timm_model_name": f"vit_{timm}_patch{patch}_siglip_{side}", "timm_pool": "map",
        "timm_proj": "none",
    }  # fmt: skip
    return {"embed_dim": dim, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}


def preprocess_config(architecture: str, tag: str) -> Mapping[str, Any]:
    """The `preprocess_cfg` of published weights without one."""
    if "SigLIP" in architecture:
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic", "resize_mode": "squash"}
    if (architecture, tag) == ("ViT-L-14", "laion2b_s32b_b82k"):
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return {"resize_mode": "squash"} if tag == "dfn5b" or architecture.endswith("worldwide-378") else {}


def is_quick(name: str) -> bool:
    """Whether published weights were trained with QuickGELU."""
    architecture, _, tag = name.partition("/")
    repo = PRETRAINED.get(architecture.removesuffix("-quickgelu"), {}).get(tag, name.removeprefix("hf-hub:"))
    return QUICK.fullmatch(repo) is not None


def _refuse_name(architecture: str) -> None:
    """Raise `MiradaError` for a model of open_clip that is not made of a ViT and a text transformer."""
    kinds = {
        "coca": "is a CoCa, which writes captions with a third tower",
        "roberta|xlm|mt5|nllb": "has a text tower of transformers",
        "RN|convnext|EVA|ViTamin|MobileCLIP|PE-Core|swin|vit_": "has another image tower than CLIP's or SigLIP's ViT",
        ".*CLIPA": "has no norm before its first block and pools before its last",
    }
    for pattern, what in kinds.items():
        if re.match(pattern, architecture):
            raise MiradaError(f"open_clip's {architecture} {what}, and Mirada cannot load it exactly.")


def _near(architecture: str) -> str:
    nearest = get_close_matches(architecture, PRETRAINED, 1)
    return f": did you mean {nearest[0]!r}?" if nearest else f", which are {', '.join(PRETRAINED)}."
