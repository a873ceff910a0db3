"""SEER's RegNets (Goyal et al. 2021, arXiv:2103.01988; 2022, arXiv:2202.08360) as VISSL saved them.

The published names are had from the hub, where they are in transformers' layout or, the largest, timm's; a file of the
original's goes with `weights=FILE`. What trained the trunk, SwAV's projection and prototypes, is dropped.
"""

from difflib import get_close_matches

from mirada.checkpoints.conv import Layout, numbered, regnet
from mirada.checkpoints.files import Files
from mirada.checkpoints.pixels import VISSL, from_torchvision
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import Row, Shapes
from mirada.errors import MiradaError
from mirada.model import Design

__all__ = ["NAMES", "plan", "repository"]

NAMES = {
    **{f"regnet-y-{size}-seer{tuned}": f"facebook/regnet-y-{size}-seer{tuned}"
       for size in ("320", "640", "1280", "10b") for tuned in ("", "-in1k")},
    "regnet-y-2560-seer-in1k": "timm/regnety_2560.seer_ft_in1k",
}  # fmt: skip
OTHER_NAMES = {"32gf": "320", "64gf": "640", "128gf": "1280", "256gf": "2560", "10b": "10b"}  # seer_regnet32gf and on

BLOCK = r"trunk\._feature_blocks\.res\d+\.(?:block\d+-part\d+\.)?block(\d+)-(\d+)"  # parts: how the 10B was sharded
LAYOUT = Layout(
    stem=("trunk._feature_blocks.conv1.stem.0", "trunk._feature_blocks.conv1.stem.1"),
    block=BLOCK,
    parts={
        "branch.0.0": "f.a.0", "branch.0.1": "f.a.1", "branch.2.0": "f.b.0", "branch.2.1": "f.b.1",
        "branch.4.gate.0": "f.se.excitation.0", "branch.4.gate.2": "f.se.excitation.2", "branch.5.0": "f.c",
        "branch.5.1": "f.final_bn", "shortcut.0": "proj", "shortcut.1": "bn",
    },
    head="heads.0.clf.0",
)  # fmt: skip


def repository(name: str) -> str:
    """Where the published weights are: `regnet-y-320-seer`, `regnet-y-320-seer-in1k`, or VISSL's `seer_regnet32gf`."""
    tuned = "-in1k" if name.endswith(("-in1k", "_in1k")) else ""
    size = name.lower().removeprefix("seer_regnet").removesuffix("_in1k")
    spelled = f"regnet-y-{OTHER_NAMES[size]}-seer{tuned}" if size in OTHER_NAMES else name
    if spelled not in NAMES:
        nearest = get_close_matches(spelled, NAMES, 1)
        hint = f"did you mean vissl:{nearest[0]}?" if nearest else f"there are {', '.join(NAMES)}."
        raise MiradaError(f"There is no published vissl:{name}: {hint}")
    return NAMES[spelled]


def plan(name: str, files: Files | None, shapes: Shapes) -> Plan:  # noqa: ARG001  # no config comes with these files
    """The plan for a file of VISSL's: `classy_state_dict.base_model.model`, with its `trunk` and `heads`.

    Pixels as in VISSL's linear evaluation, or, with a classifier, as in SEER's fine-tuning at 384 pixels.
    """
    architecture, table = regnet(shapes, LAYOUT, f"vissl:{name}")
    training: list[Row] = [
        (tensor, None) for tensor in shapes
        if tensor.startswith("heads.") and ("projection_head" in tensor or "prototypes" in tensor)
    ]  # fmt: skip
    classes = numbered(shapes, LAYOUT.head)
    preprocess = VISSL if classes is None else from_torchvision(384, 384, "bicubic")
    return Plan(Design(architecture, preprocess, classes), [*table, *training])
