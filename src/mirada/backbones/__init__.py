"""The table of sizes, and `build`: a name such as `vit-ti/4(registers=4)` becomes a backbone.

Names compose: family, size, patch, and the constructor's own keyword arguments as options. A size is a row of a table.
"""

import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from mirada.backbones.coatnet import COATNET_SIZES, CoAtNet
from mirada.backbones.regnet import REGNET_SIZES, RegNet
from mirada.backbones.resnet import RESNET_SIZES, ResNet
from mirada.backbones.vit import ViT
from mirada.errors import MiradaError
from mirada.features import Backbone
from mirada.language import call, format_call

__all__ = ["SIZES", "VIT_SIZES", "Size", "build", "canonical", "require_colour"]

VIT_SIZES: dict[str, dict[str, Any]] = {
    "pico": {"dim": 64, "depth": 4, "num_heads": 2},
    "nano": {"dim": 128, "depth": 6, "num_heads": 4},
    "ti": {"dim": 192, "depth": 12, "num_heads": 3},
    "s": {"dim": 384, "depth": 12, "num_heads": 6},
    "m": {"dim": 512, "depth": 12, "num_heads": 8},
    "b": {"dim": 768, "depth": 12, "num_heads": 12},
    "l": {"dim": 1024, "depth": 24, "num_heads": 16},
    "so400m": {"dim": 1152, "depth": 27, "num_heads": 16, "mlp_ratio": 4304 / 1152},  # arXiv:2305.13035
    "h": {"dim": 1280, "depth": 32, "num_heads": 16},
    "g": {"dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 6144 / 1408},  # arXiv:2106.04560, table 2
}


class Size(NamedTuple):
    """One row: how a named backbone is built, and the patch its paper uses (None where a patch has no meaning)."""

    family: str
    build: Callable[..., Backbone]
    patch: int | None


SIZES: dict[str, Size] = {
    **{f"vit-{name}": Size("vit", partial(ViT, **row), 14 if name in ("so400m", "h", "g") else 16)
       for name, row in VIT_SIZES.items()},
    **{f"coatnet-{name}": Size("coatnet", partial(CoAtNet, **row), None) for name, row in COATNET_SIZES.items()},
    **{f"resnet-{name}": Size("resnet", partial(ResNet, **row), None) for name, row in RESNET_SIZES.items()},
    **{f"regnety-{name}": Size("regnet", partial(RegNet, **row), None) for name, row in REGNET_SIZES.items()},
}  # fmt: skip


def build(reference: str, **defaults: Any) -> Backbone:
    """A backbone with random weights from its name: `vit-s/16`, `coatnet-0`, `vit-nano/4(pooling="average")`.

    `defaults` are constructor options (such as `image_size`) that apply where the constructor has them and the name
    does not set them. Raises `MiradaError` for a name, patch or option that does not exist, naming the nearest.
    """
    size, patch, options = _parse(reference)
    parameters = inspect.signature(size.build).parameters
    if unknown := [key for key in options if key not in parameters]:
        nearest = get_close_matches(unknown[0], parameters, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"its options are {', '.join(parameters)}."
        raise MiradaError(f"The model {reference!r} has no option {unknown[0]!r}: {hint}")
    options = {key: value for key, value in defaults.items() if key in parameters} | options
    if size.patch is not None:
        options["patch_size"] = patch
    try:
        return size.build(**options)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        if isinstance(error, MiradaError):
            raise
        raise MiradaError(f"The options of the model {reference!r} do not fit together: {error}.") from error


def canonical(reference: str, **defaults: Any) -> str:
    """The name as it is stored: patch spelled out, and `defaults` added where the constructor has them and the name
    does not set them. `build` of it needs nothing else. Raises as `build` does for an unknown name."""
    size, patch, options = _parse(reference)
    parameters = inspect.signature(size.build).parameters
    options = {key: value for key, value in defaults.items() if key in parameters} | options
    name = call(reference)[0].partition("/")[0]
    return format_call(f"{name}/{patch}" if size.patch is not None else name, options)


def require_colour(reference: str) -> None:
    """Raise `MiradaError` for a name of a backbone that does not see pictures of three channels."""
    channels = call(reference)[1].get("in_channels", 3)
    if channels != 3:
        raise MiradaError(f"Pictures have 3 channels, and {reference!r} sees {channels}: leave in_channels out, or use "
                          "the backbone alone, from mirada.backbones.build.")  # fmt: skip


def _parse(reference: str) -> tuple[Size, int | None, dict[str, Any]]:
    name, options = call(reference)
    base, slash, patch = name.partition("/")
    size = SIZES.get(base)
    if size is None:
        nearest = get_close_matches(base, SIZES, 1, cutoff=0.4)
        hint = f"did you mean {nearest[0] + slash + patch!r}? " if nearest else ""
        raise MiradaError(f"There is no model {reference!r}: {hint}`mirada models` lists all names.")
    if size.patch is None and slash:
        raise MiradaError(f"The model {base!r} has no patches: write it without {slash + patch!r}.")
    if slash and not re.fullmatch(r"[1-9]\d*", patch):
        raise MiradaError(f"The patch size in {reference!r} must be a whole number, such as {base}/{size.patch}.")
    if size.patch is not None and "patch_size" in options:
        raise MiradaError(f"The patch size of {reference!r} stands behind the slash: {base}/{options['patch_size']}.")
    return size, int(patch) if slash else size.patch, options
