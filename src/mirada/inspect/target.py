"""What a map explains: a class of the head, or a text."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mirada.errors import MiradaError
from mirada.features import Features, within
from mirada.model import Model

__all__ = ["Target", "score"]

# The number or name of a class, a text's unit vector (D,), or a function of the features to a scalar per image, (B,).
Target = int | str | Tensor | Callable[[Features], Tensor]


def score(model: Model, features: Features, target: Target | None) -> Tensor:
    """(B,): the logit of a class, the cosine with a text's vector, or what a function says; for None the largest logit
    of each image. Raises `MiradaError` for a model without a head, for a class that it does not know, and for a
    function that gives something else than one scalar per image."""
    if isinstance(target, Tensor):
        feature = F.normalize(model.project(features.pooled).float(), dim=1)
        return feature @ F.normalize(target.to(feature), dim=0)
    if callable(target):
        found: Tensor = target(features)
        if found.shape != features.pooled.shape[:1]:
            raise MiradaError(f"What is to be explained has the shape {tuple(found.shape)}: give a function of the "
                              f"features to one scalar for each image, ({len(features.pooled)},).")  # fmt: skip
        return found
    if model.head is None or model.classes is None:
        raise MiradaError(
            f"The model {model.architecture!r} has no classification head: give a text's vector to explain, or train a "
            "head with `mirada train`."
        )
    logits: Tensor = model.head(model.read_by_head(features)).float()
    if target is None:
        return logits.amax(1)
    if isinstance(target, str):
        if target not in model.classes:
            raise MiradaError(f"The model does not know the class {target!r}: it knows {', '.join(model.classes[:12])}"
                              f"{' ...' if len(model.classes) > 12 else ''}.")  # fmt: skip
        target = model.classes.index(target)
    return logits[:, torch.tensor(within([target], len(model.classes), "class")[0])]
