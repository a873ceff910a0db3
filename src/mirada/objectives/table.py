"""Names of objectives, as `--objective` spells them."""

import inspect

from mirada.language import sum_of_terms
from mirada.objectives.base import Objective
from mirada.objectives.clip import CLIP
from mirada.objectives.colorization import Colorization
from mirada.objectives.dino import DINO
from mirada.objectives.jigsaw import Jigsaw
from mirada.objectives.masked import Masked
from mirada.objectives.relative_position import RelativePosition
from mirada.objectives.rotation import Rotation
from mirada.objectives.siglip import SigLIP
from mirada.objectives.simclr import SimCLR
from mirada.objectives.supervised import Supervised
from mirada.objectives.swav import SwAV

__all__ = ["OBJECTIVES", "is_self_supervised"]

OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "rotation": Rotation,
    "jigsaw": Jigsaw,
    "relative_position": RelativePosition,
    "colorization": Colorization,
    "masked": Masked,
    "dino": DINO,
    "swav": SwAV,
    "simclr": SimCLR,
    "clip": CLIP,
    "siglip": SigLIP,
}


def is_self_supervised(text: str) -> bool:
    """Whether no term of a sum of objectives needs labels or captions."""
    kinds = [OBJECTIVES.get(term.name, Supervised) for term in sum_of_terms(text)]
    return not any({"classes", "pairs"} & inspect.signature(kind).parameters.keys() for kind in kinds)
