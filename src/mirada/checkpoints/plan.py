"""What a published checkpoint becomes here: a design, and the table by which its tensors find their places."""

from typing import NamedTuple

from mirada.checkpoints.table import Table
from mirada.model import Design

__all__ = ["Plan"]


class Plan(NamedTuple):
    """Everything about a checkpoint but its tensors."""

    design: Design
    table: Table
    vocabulary: str | None = None  # of its text tower: the text of its tokenizer.json
