"""What can be built or loaded, with sizes: what `mirada models` shows. Nothing is fetched but facts."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from mirada.backbones import SIZES, build
from mirada.checkpoints.published import describe_published, published_family
from mirada.checkpoints.released import RELEASED, Released
from mirada.data.images import Progress
from mirada.device import without_values
from mirada.errors import MiradaError
from mirada.language import call
from mirada.loading import known_names, load, untrained
from mirada.model import Model
from mirada.shipped import PREFIX as SHIPPED_PREFIX
from mirada.shipped import SHIPPED
from mirada.tokenizer import Tokenizer

__all__ = ["SIZED", "catalogue", "describe", "is_model", "measure", "multiply_adds"]

# Every size as `measure` counts it at 224 pixels: parameters, GFLOPs, numbers in a feature, pixels per patch. Stored,
# because counting all of them takes half a minute.
SIZED: dict[str, tuple[int, float, int, int]] = {
    "vit-pico/16": (261_952, 0.068, 64, 16),
    "vit-nano/16": (1_313_664, 0.311, 128, 16),
    "vit-ti/16": (5_524_416, 1.253, 192, 16),
    "vit-s/16": (21_665_664, 4.598, 384, 16),
    "vit-m/16": (38_324_736, 7.99, 512, 16),
    "vit-b/16": (85_798_656, 17.563, 768, 16),
    "vit-l/16": (303_301_632, 61.554, 1024, 16),
    "vit-so400m/14": (412_444_656, 109.927, 1152, 14),
    "vit-h/14": (630_764_800, 167.294, 1280, 14),
    "vit-g/14": (1_011_202_432, 267.03, 1408, 14),
    "coatnet-0": (23_677_228, 4.141, 768, 32),
    "coatnet-1": (40_866_184, 8.238, 768, 32),
    "coatnet-2": (72_610_144, 15.5, 1024, 32),
    "coatnet-3": (163_068_432, 34.368, 1536, 32),
    "coatnet-4": (271_527_456, 60.232, 1536, 32),
    "resnet-18": (11_176_512, 1.814, 512, 32),
    "resnet-34": (21_284_672, 3.663, 512, 32),
    "resnet-50": (23_508_032, 4.087, 2048, 32),
    "resnet-101": (42_500_160, 7.799, 2048, 32),
    "resnet-152": (58_143_808, 11.512, 2048, 32),
    "regnety-400mf": (3_903_144, 0.401, 440, 32),
    "regnety-800mf": (5_647_512, 0.833, 784, 32),
    "regnety-1.6gf": (10_313_430, 1.611, 888, 32),
    "regnety-3.2gf": (17_923_338, 3.175, 1512, 32),
    "regnety-8gf": (37_364_472, 8.471, 2016, 32),
    "regnety-16gf": (80_565_140, 15.908, 3024, 32),
    "regnety-32gf": (141_333_770, 32.276, 3712, 32),
    "regnety-64gf": (276_457_786, 64.065, 4920, 32),
    "regnety-128gf": (637_419_894, 127.51, 7392, 32),
    "regnety-256gf": (1_272_156_138, 254.374, 10444, 32),
    "regnety-10b": (9_323_934_872, 1863.285, 28280, 32),
}  # fmt: skip


def catalogue(word: str = "") -> list[dict[str, Any]]:
    """One row for each size name and each well-known published model whose name contains `word`, from tables."""
    sizes = [_size(name) for name in known_names() if word.lower() in name]
    shipped = [describe(name) for name in SHIPPED if word.lower() in name]
    return sizes + shipped + [_released(name, row) for name, row in RELEASED.items() if word.lower() in name.lower()]


def is_model(ref: str) -> bool:
    """Whether this is meant as one model, not as a part of many names."""
    return (
        os.path.exists(ref)
        or ref.startswith(SHIPPED_PREFIX)
        or published_family(ref) is not None
        or call(ref)[0].partition("/")[0] in SIZES
    )


def describe(ref: str, on_progress: Progress | None = None) -> dict[str, Any]:
    """One model: a size name, a folder, or a published name, of which nothing but facts is fetched. With what it
    expects of pixels and of words, its classes and where it comes from."""
    if ref.startswith(SHIPPED_PREFIX):
        return describe_model(load(ref)) | {"name": ref, "source": "mirada", "licence": SHIPPED[ref], "gated": False}
    if os.path.isdir(ref):
        return describe_model(load(ref))
    if published_family(ref) is None:
        with without_values():
            model = untrained(ref)
        return describe_model(model)
    plan, facts = describe_published(ref, on_progress)
    known = RELEASED.get(ref)
    row = _unknown(ref) if known is None else _released(ref, known)
    if plan is not None:
        with without_values():
            model = Model.from_design(plan.design, plan.vocabulary)
        row |= describe_model(model) | {"name": ref}
    told = {key: value for key, value in facts.items() if value is not None or row.get(key) is None}
    authors = row.get("licence")  # whom the hub's page may contradict
    return row | told | {"licence_of_authors": authors}


def describe_model(model: Model) -> dict[str, Any]:
    """The row of a model that is here, or whose design is."""
    return {"name": model.architecture} | measure(model) | {
        "preprocess": model.preprocess.to_dict(),
        "text": None if model.text is None else model.text.design.to_dict() | {"lower_case": _lowers(model.tokenizer)},
        "classes": model.classes, "provenance": model.provenance,
    }  # fmt: skip


def measure(model: Model) -> dict[str, Any]:
    """Sizes of a model.

    `parameters` are those that an image meets: backbone, projection, head. `gflops` are its multiply-adds, in billions,
    for one image of the size that the model expects, as papers count: norms, activations and softmax left out.
    """
    linear = [part for part in (model.projection, model.head) if part is not None]
    size = list(model.preprocess.size)
    operations = multiply_adds(model.architecture, size) + sum(part.weight.numel() for part in linear)
    return {
        "family": _family(model.architecture), "architecture": model.architecture,
        "parameters": sum(p.numel() for part in (model.backbone, *linear) for p in part.parameters()),
        "gflops": round(operations / 1e9, 3), "size": size, "dim": model.dim,
        "stride": model.backbone.stride, "head": None if model.head is None else model.head.out_features,
        "text_parameters": None if model.text is None else sum(p.numel() for p in model.text.parameters()),
    }  # fmt: skip


def multiply_adds(architecture: str, size: Sequence[int]) -> int:
    """Of a backbone, for one image (height, width)."""
    from torch.utils.flop_counter import FlopCounterMode  # which takes its time

    with without_values():
        backbone = build(architecture).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            backbone(torch.empty(1, 3, *size))
    return int(counter.get_total_flops()) // 2


def _size(name: str) -> dict[str, Any]:
    """The row of a size name. One that is not in the table is counted."""
    if name not in SIZED:
        with without_values():
            return {"name": name} | measure(untrained(name))
    parameters, gflops, dim, stride = SIZED[name]
    return {
        "name": name, "family": _family(name), "architecture": name, "parameters": parameters, "gflops": gflops,
        "size": [224, 224], "dim": dim, "stride": stride, "head": None, "text_parameters": None,
    }  # fmt: skip


def _released(name: str, row: Released) -> dict[str, Any]:
    return {
        "name": name, "family": _family(row.architecture), "architecture": row.architecture,
        "parameters": row.parameters, "gflops": row.gflops, "size": [row.size, row.size], "dim": row.dim,
        "stride": int(call(row.architecture)[0].partition("/")[2] or 32), "head": row.head,
        "text_parameters": row.text_parameters, "source": name.partition(":")[0], "licence": row.licence,
        "gated": row.gated,
    }  # fmt: skip


def _unknown(name: str) -> dict[str, Any]:
    """The row of a published model of which only its page is known."""
    keys = ("family", "architecture", "parameters", "gflops", "size", "dim", "stride", "head", "text_parameters")
    return {"name": name} | dict.fromkeys(keys) | {"source": name.partition(":")[0]}


def _family(architecture: str) -> str:
    return SIZES[call(architecture)[0].partition("/")[0]].family


def _lowers(tokenizer: Tokenizer | None) -> bool | None:
    """Whether capitals make no difference, which some vocabularies see to themselves; None without one."""
    if tokenizer is None:
        return None
    try:
        upper, lower = tokenizer(["A Red CAR", "a red car"])
    except MiradaError:
        return None
    return bool(torch.equal(upper, lower))
