"""Mirada: vision transformers, from a folder of images to a model you understand and use.

Names are imported when first used, so that `import mirada` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirada.errors import MiradaError
    from mirada.loading import load
    from mirada.model import Model
    from mirada.search.index import Index

__all__ = ["Index", "MiradaError", "Model", "__version__", "load"]
__version__ = "0.1.0"

_HOMES = {
    "Index": "mirada.search.index", "MiradaError": "mirada.errors", "Model": "mirada.model", "load": "mirada.loading",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "inspect":
        return import_module("mirada.inspect")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mirada' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
