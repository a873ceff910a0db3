"""What the layouts of image-and-text models have in common."""

from mirada.checkpoints.table import How, Row, Shapes

__all__ = ["SCALAR", "logit_rows"]

# A tensor of shape (1,) there is a 0-dimensional one here.
SCALAR = How(lambda tensors, _: [t.reshape(()) for t in tensors], lambda tensors, _: [t.reshape(1) for t in tensors])


def logit_rows(shapes: Shapes) -> list[Row]:
    """Scale and bias of the logits, which some layouts keep as vectors of one element."""
    return [
        (name, f"text.{name}", SCALAR) if tuple(shapes.get(name, ())) == (1,) else (name, f"text.{name}")
        for name in ("logit_scale", "logit_bias")
    ]
