"""Going on with a finished self-supervised run: not only its model, but its student, teachers and heads."""

import os

import safetensors
from torch import Tensor

from mirada.errors import MiradaError
from mirada.language import sum_of_terms
from mirada.model import Model
from mirada.objectives import Learner
from mirada.train.folder import RunFolder

__all__ = ["self_supervised_objective", "take_over"]

ORIGINAL = ".parametrizations.weight.original"  # the name that `mirada.train.lora` leaves a matrix
CHANGE = (".parametrizations.weight.0.up", ".parametrizations.weight.0.down")


def self_supervised_objective(start: Model) -> str | None:
    """What the run that trained `start` asked without labels; None where it had some, or is not known."""
    known = start.provenance.get("objective")
    supervised = known is None or any(term.name == "supervised" for term in sum_of_terms(known))
    return None if supervised else str(known)


def take_over(learner: Learner, run: str) -> str | None:
    """Fill every self-supervised objective of `learner` that the run in the folder `run` had, too, from its last
    checkpoint; and then the backbone, since the run's model may be a teacher. Returns a note on what was done, None
    where there was nothing to take: another kind of model, a run without a checkpoint, or other objectives.

    Raises:
        MiradaError: the checkpoint is damaged.
    """
    path = RunFolder(run).checkpoint
    if not os.path.isdir(run) or not path.is_file():
        return None
    ours = learner.state_dict()
    taken: dict[str, Tensor] = {}
    names: list[str] = []
    anew: list[str] = []
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            known = {name.removeprefix("learner."): name for name in file.keys()}  # noqa: SIM118  # not a dict

            def read(prefix: str) -> dict[str, Tensor] | None:
                """All of ours under it, or None where theirs are not the same, name by name and shape by shape. Of a
                layer with a change of low rank it is the matrix that is changed."""
                wanted = {name: name.replace(ORIGINAL, ".weight") for name in ours
                          if name.startswith(prefix) and not name.endswith(CHANGE)}  # fmt: skip
                if set(wanted.values()) != {name for name in known if name.startswith(prefix)}:
                    return None
                tensors = {name: file.get_tensor(known[plain]) for name, plain in wanted.items()}
                same = all(tensor.shape == ours[name].shape for name, tensor in tensors.items())
                return tensors if same else None

            for name in learner.objectives:
                prefix = f"objectives.{name}."
                if name == "supervised" or not any(key.startswith(prefix) for key in known):
                    continue
                tensors = read(prefix)
                (anew if tensors is None else names).append(name)
                taken |= tensors or {}
            backbone = read("backbone.") if names else None
    except (OSError, safetensors.SafetensorError) as error:
        raise MiradaError(
            f"Cannot read {path} ({error}): it is damaged; name {RunFolder(run).model} to start from its model alone."
        ) from error
    note = f"Of {run}, {' and '.join(anew)} had other options, or --lora: its heads start anew." if anew else None
    if names and backbone is None:
        note = (
            f"The network of {run} was trained with other options, or --lora: only its model is taken, without heads."
        )
    if names and backbone is not None:
        learner.load_state_dict(taken | backbone, strict=False)
        note = f"Going on with the student and all of {' and '.join(names)} from {run}." + (f" {note}" if note else "")
    return note
