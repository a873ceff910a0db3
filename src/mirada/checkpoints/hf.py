"""transformers' checkpoints: which plan is whose, told by the `model_type` and `architectures` of config.json."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from mirada.checkpoints import hf_clip, hf_conv, hf_vit
from mirada.checkpoints.files import Files
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import Shapes
from mirada.errors import MiradaError

__all__ = ["PLANS", "plan", "repository"]

Planner = Callable[[dict[str, Any], Files | None, Shapes], Plan]

PLANS: dict[str, Planner] = {
    "vit": hf_vit.plan_vit,
    "deit": hf_vit.plan_deit,
    "vit_mae": hf_vit.plan_mae,
    "dinov2": hf_vit.plan_dinov2,
    "dinov2_with_registers": hf_vit.plan_dinov2,
    "dinov3_vit": hf_vit.plan_dinov3,
    "clip": hf_clip.plan_clip,
    "clip_vision_model": hf_clip.plan_clip_vision,
    "siglip": hf_clip.plan_siglip,
    "siglip_vision_model": hf_clip.plan_siglip_vision,
    "siglip2": hf_clip.plan_siglip2,
    "siglip2_vision_model": hf_clip.plan_siglip2_vision,
    "resnet": hf_conv.plan_resnet,
    "regnet": hf_conv.plan_regnet,
}


def repository(name: str) -> str:
    """`hf:ORG/NAME` is a repository's own name; without an organisation it is one of the hub's oldest."""
    return name


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:
    """The plan for a model that `save_pretrained` wrote, here or on the hub."""
    config = files.json("config.json") if files is not None else None
    if config is None:
        raise MiradaError(
            f"There is no config.json for {name}, and transformers' weights say too little without: give the folder "
            "that save_pretrained wrote, or a repository of the hub as hf:ORG/NAME."
        )
    kind = str(config.get("model_type"))
    if kind not in PLANS:
        nearest = get_close_matches(kind, PLANS, 1)
        raise MiradaError(
            f"{name} is a model of the type {kind!r}, which Mirada does not load: it loads {', '.join(PLANS)}"
            f"{f'; {nearest[0]} is the nearest' if nearest else ''}."
        )
    return PLANS[kind](config, files, shapes)
