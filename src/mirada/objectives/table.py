"""Names of objectives, as `--objective` spells them."""

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

__all__ = ["OBJECTIVES"]

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
