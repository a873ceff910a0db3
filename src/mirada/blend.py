"""Weights between those of two models: what `mirada blend` does.

Between a published model and what fine-tuning made of it lie models that know the new task nearly as well and have
forgotten less (WiSE-FT, Wortsman et al. 2021, arXiv:2109.01903, section 3).
"""

from pathlib import Path
from typing import Any

import torch

from mirada.errors import MiradaError, Misuse
from mirada.loading import load
from mirada.model import Model

__all__ = ["blend"]


def blend(first: str, second: str, out: str, *, weight: float = 0.5) -> dict[str, Any]:
    """Save the model whose weights are (1 - weight) * first + weight * second; returns what `mirada blend --json`
    prints. Its preprocessing is the second's, and so is a head that the first has not, or has for other classes.

    Raises:
        MiradaError: the two are not of one design.
    """
    if not 0 <= weight <= 1:
        raise Misuse(f"A weight of {weight} lies on no line between the models: use one from 0 to 1.")
    if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise Misuse(f"{out!r} is there already: name a new folder with --out.")
    one, two = load(first), load(second)
    require_alike(first, one, second, two)
    mine, theirs = one.state_dict(), two.state_dict()
    same_head = one.classes == two.classes
    for name, tensor in theirs.items():
        if name in mine and tensor.is_floating_point() and (same_head or not name.startswith("head.")):
            theirs[name] = torch.lerp(mine[name].float(), tensor.float(), weight).to(tensor.dtype)
    two.load_state_dict(theirs)
    two.provenance = {"blend": [first, second], "weight": weight, "of": [one.provenance, two.provenance]}
    folder = two.save(Path(out))
    return {"out": str(folder), "first": first, "second": second, "weight": weight}


def require_alike(first: str, one: Model, second: str, two: Model) -> None:
    """Raise `MiradaError` unless all that is blended has the same shape and meaning in both."""
    facts = {
        "backbone": (one.architecture, two.architecture),
        "text tower": (one.text and one.text.design, two.text and two.text.design),
        "vocabulary": (one.tokenizer and one.tokenizer.vocabulary, two.tokenizer and two.tokenizer.vocabulary),
        "size of the image feature": (one.dim, two.dim),
    }
    for what, (mine, theirs) in facts.items():
        if mine != theirs:
            shown = f" ({mine} and {theirs})" if isinstance(mine, (str, int)) and what != "vocabulary" else ""
            raise MiradaError(f"{first!r} and {second!r} have not the same {what}{shown}: blend a model with what was "
                              "fine-tuned from it.")  # fmt: skip
