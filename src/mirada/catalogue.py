"""What can be built or loaded, with sizes: what `mirada models` lists."""

from pathlib import Path
from typing import Any

import torch

from mirada.backbones import SIZES, build
from mirada.features import Backbone
from mirada.language import call
from mirada.model import known_names, load, untrained

__all__ = ["catalogue", "describe"]


def catalogue() -> list[dict[str, Any]]:
    """One row for each size name; networks are built without memory for their weights."""
    with torch.device("meta"):
        return [_row(name, build(name)) for name in known_names()]


def describe(ref: str) -> dict[str, Any]:
    """One model, a size name or a folder, with its preprocessing, its classes and where it comes from."""
    if Path(ref).is_dir():
        model = load(ref)
    else:
        with torch.device("meta"):
            model = untrained(ref)
    return _row(model.architecture, model.backbone) | {
        "preprocess": model.preprocess.to_dict(), "classes": model.classes, "provenance": model.provenance,
    }  # fmt: skip


def _row(name: str, backbone: Backbone) -> dict[str, Any]:
    family = SIZES[call(name)[0].partition("/")[0]].family
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return {"name": name, "family": family, "parameters": parameters, "dim": backbone.dim, "stride": backbone.stride}
