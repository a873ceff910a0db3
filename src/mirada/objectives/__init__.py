"""The table of objectives. A new one is a file beside these and a row here."""

from mirada.objectives.base import Encoder, Objective
from mirada.objectives.learner import Learner
from mirada.objectives.rotation import Rotation
from mirada.objectives.supervised import Supervised
from mirada.objectives.table import OBJECTIVES

__all__ = ["OBJECTIVES", "Encoder", "Learner", "Objective", "Rotation", "Supervised"]
