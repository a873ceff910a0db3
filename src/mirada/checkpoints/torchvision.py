"""torchvision's vit_*, resnet* and regnet_y_*.

As in torchvision 0.28. Its residual networks are on the hub among timm's, ResNets in torchvision's own layout and
RegNets in timm's, which are both read here; its vision transformers are not, and need `weights=FILE`. A name may end in
one of torchvision's names of weights, `resnet50/IMAGENET1K_V1`; without, it means what torchvision calls DEFAULT.
"""

from difflib import get_close_matches
from typing import Any, NamedTuple

from mirada.backbones import VIT_SIZES
from mirada.checkpoints import timm_conv
from mirada.checkpoints.conv import Layout, length, numbered, regnet, resnet
from mirada.checkpoints.files import Files
from mirada.checkpoints.pixels import from_torchvision
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import Shapes, Table, join
from mirada.checkpoints.vit import depth_of, grid_of
from mirada.errors import MiradaError
from mirada.language import format_call
from mirada.model import Design, Projection

__all__ = ["PRESETS", "plan", "repository"]


class Preset(NamedTuple):
    """Some published weights: the pixels of their evaluation, and their repository on the hub."""

    crop: int = 224
    resize: int = 256
    interpolation: str = "bilinear"
    repository: str | None = None


def _resnet(size: int, newer: bool) -> dict[str, Preset]:
    older = {"IMAGENET1K_V1": Preset(repository=f"timm/resnet{size}.tv_in1k")}
    return older | ({"IMAGENET1K_V2": Preset(224, 232, repository=f"timm/resnet{size}.tv2_in1k")} if newer else {})


def _regnet(timm: str) -> dict[str, Preset]:
    newer = Preset(224, 232, repository=f"timm/regnety_{timm}.tv2_in1k")
    return {"IMAGENET1K_V1": Preset(), "IMAGENET1K_V2": newer}


def _swag(crop: int, timm: str | None = None) -> dict[str, Preset]:
    """Weakly supervised, then fine-tuned end to end or the classifier alone (arXiv:2201.08371)."""
    end_to_end, linear = (None if timm is None else f"timm/regnety_{timm}.swag_{kind}_in1k" for kind in ("ft", "lc"))
    return {"IMAGENET1K_SWAG_E2E_V1": Preset(crop, crop, "bicubic", end_to_end),
            "IMAGENET1K_SWAG_LINEAR_V1": Preset(224, 224, "bicubic", linear)}  # fmt: skip


PRESETS: dict[str, dict[str, Preset]] = {
    "resnet18": _resnet(18, False),
    "resnet34": _resnet(34, False),
    "resnet50": _resnet(50, True),
    "resnet101": _resnet(101, True),
    "resnet152": _resnet(152, True),
    "regnet_y_400mf": _regnet("004"),
    "regnet_y_800mf": _regnet("008_tv"),
    "regnet_y_1_6gf": _regnet("016"),
    "regnet_y_3_2gf": _regnet("032"),
    "regnet_y_8gf": _regnet("080_tv"),
    "regnet_y_16gf": _regnet("160") | _swag(384, "160"),
    "regnet_y_32gf": _regnet("320") | _swag(384, "320"),
    "regnet_y_128gf": _swag(384, "1280"),
    "vit_b_16": {"IMAGENET1K_V1": Preset()} | _swag(384),
    "vit_b_32": {"IMAGENET1K_V1": Preset()},
    "vit_l_16": {"IMAGENET1K_V1": Preset(224, 242)} | _swag(512),
    "vit_l_32": {"IMAGENET1K_V1": Preset()},
    "vit_h_14": _swag(518),
}
REGNET = Layout(
    stem=("stem.0", "stem.1"),
    block=r"trunk_output\.block\d+\.block(\d+)-(\d+)",
    parts={
        "branch.0.0": "f.a.0", "branch.0.1": "f.a.1", "branch.2.0": "f.b.0", "branch.2.1": "f.b.1",
        "branch.4.gate.0": "f.se.fc1", "branch.4.gate.2": "f.se.fc2", "branch.5.0": "f.c.0", "branch.5.1": "f.c.1",
        "shortcut.0": "proj.0", "shortcut.1": "proj.1",
    },
    head="fc",
)  # fmt: skip
_LAYER = "encoder.layers.encoder_layer_{}"
VIT: Table = [
    ("class_token", "backbone.prefix"),
    ("conv_proj.{}", "backbone.stem.{}"),
    ("encoder.pos_embedding", ("backbone.class_position", "backbone.position"), join(1)),
    (f"{_LAYER}.ln_1.{{}}", "backbone.blocks.{}.norm1.{}"),
    (f"{_LAYER}.self_attention.in_proj_weight", "backbone.blocks.{}.attention.qkv.weight"),
    (f"{_LAYER}.self_attention.in_proj_bias", "backbone.blocks.{}.attention.qkv.bias"),
    (f"{_LAYER}.self_attention.out_proj.{{}}", "backbone.blocks.{}.attention.proj.{}"),
    (f"{_LAYER}.ln_2.{{}}", "backbone.blocks.{}.norm2.{}"),
    (f"{_LAYER}.mlp.0.{{}}", "backbone.blocks.{}.feed_forward.0.{}"),
    (f"{_LAYER}.mlp.3.{{}}", "backbone.blocks.{}.feed_forward.2.{}"),
    (f"{_LAYER}.mlp.linear_1.{{}}", "backbone.blocks.{}.feed_forward.0.{}"),  # before torchvision 0.14
    (f"{_LAYER}.mlp.linear_2.{{}}", "backbone.blocks.{}.feed_forward.2.{}"),
    ("encoder.ln.{}", "backbone.norm.{}"),
    ("heads.pre_logits.{}", "projection.{}"),
    ("heads.head.{}", "head.{}"),
]


def repository(name: str) -> str:
    """Where the published weights are on the hub."""
    model, tag, preset = _preset(name)
    if preset.repository is None:
        others = [f"torchvision:{model}/{other}" for other, one in PRESETS[model].items() if one.repository]
        hint = f"load {', '.join(others)}, or download" if others else "download"
        raise MiradaError(
            f"torchvision:{model} with {tag} is not on the hub: {hint} the file of torchvision.models' weights {tag} "
            "and pass it as weights=FILE."
        )
    return preset.repository


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:  # noqa: ARG001  # its pixels are not in a file
    """The plan for a file in torchvision's layout or, as the hub has the RegNets, in timm's."""
    model, _, preset = _preset(name)
    what = f"torchvision:{model}"
    if model.startswith("vit"):
        architecture, table, size = vit(model, shapes, what)
        head = "heads.head"
        if size != preset.crop:  # other weights than the name says: those with positions for that size
            fitting = [other for other in PRESETS[model].values() if other.crop == size]
            preset = fitting[0] if fitting else Preset(size, size * preset.resize // preset.crop, preset.interpolation)
    elif model.startswith("resnet"):
        (architecture, table), head = resnet(shapes, timm_conv.RESNET, what), timm_conv.RESNET.head
    else:
        layout = timm_conv.REGNET if "stem.conv.weight" in shapes else REGNET
        (architecture, table), head = regnet(shapes, layout, what), layout.head
    hidden = shapes.get("heads.pre_logits.weight")
    design = Design(
        architecture=architecture,
        preprocess=from_torchvision(preset.resize, preset.crop, preset.interpolation),
        classes=numbered(shapes, head),
        head_input="pooled" if hidden is None else "projected",
        projection=None if hidden is None else Projection(hidden[0], bias=True, tanh=True),
    )
    return Plan(design, table)


def vit(model: str, shapes: Shapes, what: str) -> tuple[str, Table, int]:
    """Architecture, table, and the size of images that its positions are for; others are interpolated with the corners
    in place, as torchvision does."""
    letter, patch = model.split("_")[1:]
    size = int(patch) * grid_of(length(shapes, "encoder.pos_embedding", 1, what) - 1, what)
    depth = depth_of(shapes, "encoder.layers.encoder_layer_")
    options: dict[str, Any] = {"image_size": size, "resample": "corners"}
    if depth != VIT_SIZES[letter]["depth"]:
        options["depth"] = depth
    return format_call(f"vit-{letter}/{patch}", options), VIT, size


def _preset(name: str) -> tuple[str, str, Preset]:
    """torchvision's names of the model and of its weights, and what is known of those."""
    model, _, tag = name.partition("/")
    if model not in PRESETS:
        nearest = get_close_matches(model, PRESETS, 1, cutoff=0.5)
        hint = f"did you mean torchvision:{nearest[0]}?" if nearest else f"there are {', '.join(PRESETS)}."
        raise MiradaError(f"Mirada does not have torchvision:{model}: {hint}")
    presets = PRESETS[model]
    default = next((kind for kind in ("IMAGENET1K_V2", "IMAGENET1K_V1") if kind in presets), "IMAGENET1K_SWAG_E2E_V1")
    tag = default if tag in ("", "DEFAULT") else tag
    if tag not in presets:
        raise MiradaError(f"torchvision:{model} has no weights {tag!r}: there are {', '.join(presets)}.")
    return model, tag, presets[tag]
