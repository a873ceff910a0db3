"""transformers' ResNet and RegNet, SEER among them (facebook/regnet-y-320-seer and on).

As in transformers 5.24. Its image feature is what its pooler gives: the mean over the grid.
"""

from collections.abc import Callable
from typing import Any

from mirada.checkpoints.conv import Layout, numbered, regnet, resnet
from mirada.checkpoints.files import Files
from mirada.checkpoints.pixels import from_hf, hf_config
from mirada.checkpoints.plan import Plan
from mirada.checkpoints.table import Shapes, Table
from mirada.errors import MiradaError
from mirada.model import Design

__all__ = ["plan_regnet", "plan_resnet"]

USUAL_SIZE = 224  # of images, where no preprocessor_config.json says it: config.json does not

RESNET = {
    "branch.0.0": "layer.0.convolution", "branch.0.1": "layer.0.normalization", "branch.2.0": "layer.1.convolution",
    "branch.2.1": "layer.1.normalization", "branch.4.0": "layer.2.convolution", "branch.4.1": "layer.2.normalization",
    "shortcut.0": "shortcut.convolution", "shortcut.1": "shortcut.normalization",
}  # fmt: skip
REGNET = {
    "branch.0.0": "layer.0.convolution", "branch.0.1": "layer.0.normalization", "branch.2.0": "layer.1.convolution",
    "branch.2.1": "layer.1.normalization", "branch.4.gate.0": "layer.2.attention.0",
    "branch.4.gate.2": "layer.2.attention.2", "branch.5.0": "layer.3.convolution",
    "branch.5.1": "layer.3.normalization", "shortcut.0": "shortcut.convolution",
    "shortcut.1": "shortcut.normalization",
}  # fmt: skip


def plan_resnet(config: dict[str, Any], files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `ResNetModel` or `ResNetForImageClassification`."""
    wanted = {
        "hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False, "num_channels": 3,
    }  # fmt: skip
    return _plan("resnet", wanted, RESNET, resnet, config, files, shapes)


def plan_regnet(config: dict[str, Any], files: Files | None, shapes: Shapes) -> Plan:
    """The plan for `RegNetModel` or `RegNetForImageClassification`."""
    wanted = {"hidden_act": "relu", "downsample_in_first_stage": True, "layer_type": "y", "num_channels": 3}
    return _plan("regnet", wanted, REGNET, regnet, config, files, shapes)


def _plan(
    kind: str, wanted: dict[str, Any], parts: dict[str, str],
    read: Callable[[Shapes, Layout, str], tuple[str, Table]], config: dict[str, Any], files: Files | None,
    shapes: Shapes,
) -> Plan:  # fmt: skip
    what = f"transformers' {kind}"
    if other := [f"{key}={config[key]!r}" for key, value in wanted.items() if config.get(key, value) != value]:
        raise MiradaError(f"{what} has {', '.join(other)} in its config.json, and Mirada has no such network.")
    prefix = f"{kind}." if any(name.startswith(f"{kind}.") for name in shapes) else ""
    stem = f"{prefix}embedder.embedder"
    block = rf"{prefix}encoder\.stages\.(\d+)\.layers\.(\d+)"
    layout = Layout((f"{stem}.convolution", f"{stem}.normalization"), block, parts, "classifier.1")
    name, table = read(shapes, layout, what)
    pixels = None if files is None else hf_config(files)
    assumed = {"preprocess": f"assumed: there was no preprocessor_config.json for {kind}"} if pixels is None else {}
    design = Design(
        architecture=name, preprocess=from_hf(pixels, kind, USUAL_SIZE),
        classes=_classes(config, shapes), provenance=assumed,
    )  # fmt: skip
    return Plan(design, table)


def _classes(config: dict[str, Any], shapes: Shapes) -> tuple[str, ...] | None:
    numbers, names = numbered(shapes, "classifier.1"), config.get("id2label") or {}
    return None if numbers is None else tuple(str(names.get(number, number)) for number in numbers)
