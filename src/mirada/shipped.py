"""Models that come with the package, under names such as `mirada:emoji`: small, with a card that says how each was made
and under what licence it may be used."""

from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from mirada.errors import MiradaError

__all__ = ["PREFIX", "SHIPPED", "shipped_folder"]

PREFIX = "mirada:"
SHIPPED = {"mirada:emoji": "Apache-2.0"}  # name: licence of the weights


def shipped_folder(ref: str) -> Path | None:
    """The folder of a shipped model; None for any other reference. Raises `MiradaError` for an unknown name."""
    if not ref.startswith(PREFIX):
        return None
    if ref not in SHIPPED:
        nearest = get_close_matches(ref, SHIPPED, 1, cutoff=0)
        raise MiradaError(f"No model {ref!r} comes with Mirada: did you mean {nearest[0]!r}?")
    return Path(str(resources.files("mirada"))) / "shipped_models" / ref.removeprefix(PREFIX)
