"""Multiply-adds of deep networks, sooner."""

from collections.abc import Sequence
from functools import cache

from mirada.backbones import VIT_SIZES
from mirada.catalogue import multiply_adds
from mirada.language import call, format_call

FREE = {"epsilon", "resample", "layer_scale", "pre_norm"}  # options that cost no multiply-adds of matrices
counted = cache(multiply_adds)


def by_depth(architecture: str, size: Sequence[int]) -> int:
    """As `mirada.catalogue.multiply_adds`, from a ViT of one block and one of two: every block costs the same."""
    name, options = call(architecture)
    if not name.startswith("vit"):
        return counted(architecture, tuple(size))
    options = {key: value for key, value in options.items() if key not in FREE and value not in ("quickgelu", "gelu")}
    depth = options.get("depth") or VIT_SIZES[name.partition("/")[0].removeprefix("vit-")]["depth"]
    one, two = (counted(format_call(name, options | {"depth": blocks}), tuple(size)) for blocks in (1, 2))
    return int(one + (depth - 1) * (two - one))
