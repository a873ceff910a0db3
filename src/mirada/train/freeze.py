"""Layers that keep their weights."""

from mirada.errors import Misuse
from mirada.features import Backbone

__all__ = ["freeze"]


def freeze(backbone: Backbone, layers: int) -> None:
    """Take the first `layers` out of training, the stem being the first; all of the backbone for -1, where only heads
    are left to train. Raises `Misuse` for a number that the backbone does not have."""
    if not -1 <= layers <= backbone.num_layers:
        raise Misuse(
            f"Cannot freeze {layers} layers of a backbone of {backbone.num_layers + 1}: use 0 to "
            f"{backbone.num_layers}, or -1 for all of it."
        )
    for name, parameter in backbone.named_parameters():
        if layers == -1 or backbone.layer_index(name) < layers:
            parameter.requires_grad_(False)
