"""The table of objectives. A new one is a file beside these and a row here."""

from mirada.objectives.base import Encoder, Objective
from mirada.objectives.clip import CLIP
from mirada.objectives.colorization import Colorization
from mirada.objectives.dino import DINO
from mirada.objectives.jigsaw import Jigsaw
from mirada.objectives.learner import Learner
from mirada.objectives.masked import Masked
from mirada.objectives.relative_position import RelativePosition
from mirada.objectives.rotation import Rotation
from mirada.objectives.siglip import SigLIP
from mirada.objectives.simclr import SimCLR
from mirada.objectives.supervised import Supervised
from mirada.objectives.swav import SwAV
from mirada.objectives.table import OBJECTIVES
from mirada.objectives.two_towers import Pairs, TwoTowers

__all__ = [
    "CLIP", "DINO", "OBJECTIVES", "Colorization", "Encoder", "Jigsaw", "Learner", "Masked", "Objective", "Pairs",
    "RelativePosition", "Rotation", "SigLIP", "SimCLR", "Supervised", "SwAV", "TwoTowers",
]  # fmt: skip
