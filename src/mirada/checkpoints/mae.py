"""MAE's original files (github.com/facebookresearch/mae; He et al. 2021, arXiv:2111.06377), the decoder dropped.

Names are timm's of its time. `mae:NAME` without a file loads the same weights as transformers' authors converted them.
Positions go to another size by bicubic interpolation without antialiasing, as util/pos_embed.py does.
"""

from difflib import get_close_matches
from typing import Any

from mirada.checkpoints import pixels
from mirada.checkpoints.files import Files
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import Row, Shapes, Table, join
from mirada.checkpoints.timm import ROWS
from mirada.checkpoints.vit import grid_of, shape_of, vit_name
from mirada.errors import MiradaError
from mirada.model import Design

__all__ = ["NAMES", "plan", "repository"]

NAMES: dict[str, tuple[dict[str, Any], str]] = {
    "mae_vit_base_patch16": ({"dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16}, "facebook/vit-mae-base"),
    "mae_vit_large_patch16": ({"dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16}, "facebook/vit-mae-large"),
    "mae_vit_huge_patch14": ({"dim": 1280, "depth": 32, "num_heads": 16, "patch_size": 14}, "facebook/vit-mae-huge"),
}
DECODER: list[Row] = [
    ("mask_token", None), ("decoder_pos_embed", None), ("decoder_embed.{}", None), ("decoder_norm.{}", None),
    ("decoder_pred.{}", None), ("decoder_blocks.{}.{}.{}", None), ("decoder_blocks.{}.{}.{}.{}", None),
]  # fmt: skip
TABLE: Table = [
    ("cls_token", "backbone.prefix"),
    ("pos_embed", ("backbone.class_position", "backbone.position"), join(1)),
    *ROWS, *DECODER,
]  # fmt: skip


def repository(name: str) -> str:
    """Where transformers' authors published the converted weights."""
    return _known(name)[1]


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:  # noqa: ARG001  # these files have no config
    """The plan for an original checkpoint; one that was fine-tuned keeps its head, unless it pools by the mean."""
    size, _ = _known(name)
    if "fc_norm.weight" in shapes:
        raise MiradaError(f"mae:{name} was fine-tuned with the mean of its patches normalised after pooling (fc_norm), "
                          "which Mirada's ViT does not do: load the pretrained weights instead.")  # fmt: skip
    side = grid_of(shape_of(shapes, "pos_embed", f"mae:{name}")[1] - 1, f"mae:{name}")
    image_size = side * size["patch_size"]
    architecture = vit_name(**size, hidden=4 * size["dim"], image_size=image_size, resample="plain")
    head = shapes.get("head.weight")
    classes = None if head is None else tuple(map(str, range(head[0])))
    return Plan(Design(architecture, pixels.mae(image_size), classes), TABLE)


def _known(name: str) -> tuple[dict[str, Any], str]:
    if name not in NAMES:
        nearest = get_close_matches(name, NAMES, 1, cutoff=0.3)
        hint = f"did you mean mae:{nearest[0]}? " if nearest else ""
        raise MiradaError(f"There is no mae:{name}: {hint}The names are {', '.join(NAMES)}.")
    return NAMES[name]
