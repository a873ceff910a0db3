"""Importing the peers that Mirada is measured against."""

import importlib
import sys

import torch

__all__ = ["import_torchvision"]

_declared: list[torch.library.Library] = []  # an operator stays declared only as long as its Library object lives


def import_torchvision() -> None:
    """`import torchvision`, which timm's data pipeline needs.

    The registry's torchvision is compiled against the CUDA build of torch. Beside a CPU-only torch its library does not
    load, and the import then fails at operators for boxes, which no classification pipeline calls. Declaring them,
    without any code behind them, is enough for everything that timm uses.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # left over from the failed attempt
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        importlib.import_module("torchvision")
