"""A peer's tensors given to a model of ours, and given back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mirada.checkpoints import table
from mirada.checkpoints.plan import Plan
from mirada.model import Model

__all__ = ["exchanged", "fits", "shapes_of"]


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def exchanged(plan: Plan, theirs: Mapping[str, Tensor]) -> Model:
    """Our model of the plan with their tensors, ready to run, once it has written out the very same ones."""
    with torch.device("meta"):
        model = Model.from_design(plan.design)
    tensors = table.read(plan.table, shapes_of(theirs), theirs.__getitem__, _wanted(model), "the peer's file")
    model.load_state_dict(tensors, assign=True)
    back = table.write(plan.table, model.state_dict(), "the model")
    assert back.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert back[name].dtype == tensor.dtype, name
        assert torch.equal(back[name], tensor), name
    return model.eval()


def fits(plan: Plan, theirs: Mapping[str, Tensor]) -> Model:
    """Our model of the plan, on the meta device as their tensors are, once names and shapes have gone both ways."""
    with torch.device("meta"):
        model = Model.from_design(plan.design)
    tensors = table.read(plan.table, shapes_of(theirs), theirs.__getitem__, _wanted(model), "the peer's file")
    assert shapes_of(tensors) == shapes_of(model.state_dict())
    assert shapes_of(table.write(plan.table, tensors, "the model")) == shapes_of(theirs)
    return model


def _wanted(model: Model) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
