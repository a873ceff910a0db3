"""Names of objectives, as `--objective` spells them."""

from mirada.objectives.base import Objective
from mirada.objectives.rotation import Rotation
from mirada.objectives.supervised import Supervised

__all__ = ["OBJECTIVES"]

OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "rotation": Rotation,
}
