"""What can be built or loaded, with sizes: what `mirada models` lists."""

from pathlib import Path
from typing import Any

import torch

from mirada.backbones import SIZES, build
from mirada.checkpoints.published import describe_published, published_family
from mirada.data.images import Progress
from mirada.features import Backbone
from mirada.language import call
from mirada.loading import known_names, load, untrained

__all__ = ["catalogue", "describe"]


def catalogue(on_progress: Progress | None = None) -> list[dict[str, Any]]:
    """One row for each size name; networks are built without memory for their weights."""
    names, rows = known_names(), []
    for name in names:
        with torch.device("meta"):
            rows.append(_row(name, build(name)))
        if on_progress is not None:
            on_progress("counting parameters", len(rows), len(names))
    return rows


def describe(ref: str) -> dict[str, Any]:
    """One model: a size name, a folder, or a published name, of which nothing but facts is fetched. With its
    preprocessing, its classes and where it comes from."""
    if Path(ref).is_dir():
        model = load(ref)
    elif published_family(ref):
        design, facts = describe_published(ref)
        if design is None:
            return {"name": ref, "family": published_family(ref)} | facts
        with torch.device("meta"):
            backbone = build(design.architecture)
        described = _row(design.architecture, backbone)
        return described | {
            "name": ref, "architecture": design.architecture, "preprocess": design.preprocess.to_dict(),
            "classes": None if design.classes is None else list(design.classes), "provenance": design.provenance,
        } | facts  # fmt: skip
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
