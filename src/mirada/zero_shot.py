"""Classification by words (Radford et al. 2021, arXiv:2103.00020, section 3.1): each label becomes a vector of the text
tower, and an image gets the label whose vector is nearest.

A label's vector is the mean of its sentences: every name of the label in every template. The vectors are kept on disk
by model and sentence, since a thousand labels in eighty templates take minutes to encode.
"""

import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from mirada.caching import add_tensors, cache_folder
from mirada.data.dataset import why
from mirada.data.images import Progress
from mirada.errors import MiradaError, Misuse
from mirada.model import Model
from mirada.saving import save_atomically

__all__ = [
    "NONE", "Label", "class_vectors", "everyday_words", "probabilities", "read_labels", "template_names", "templates",
    "vectors_of_nothing",
]  # fmt: skip

FORMAT = 1  # to be raised when the same model makes other vectors of the same sentences
AT_ONCE = 4096  # sentences between two reports of progress
NONE = "none of these"
NOTHING = ("something", "an object", "a thing", "a picture", "a background", "a texture", "nothing")


class Label(NamedTuple):
    """A class by its names: the first one is how it is called, the others are synonyms."""

    name: str
    synonyms: tuple[str, ...] = ()


def read_labels(text: str) -> tuple[list[Label], list[str]]:
    """Labels from a file, one a line, or from a list with commas; synonyms of a label stand behind a `|`. Also returns
    notes on what was put together or left out.

    Raises:
        MiradaError: a file that cannot be read, or fewer than two labels.
    """
    path, notes = Path(text), []
    if "," not in text and (os.path.isfile(path) or path.suffix in (".txt", ".csv")):
        lines = lines_of(path, "labels")
    else:
        lines = text.split(",")
    found: dict[str, Label] = {}
    owner: dict[str, str] = {}
    for line in lines:
        names = list(dict.fromkeys(name for part in line.split("|") if (name := part.strip())))
        if not names:
            continue
        key = names[0].casefold()
        if key in found:
            notes.append(f"The label {names[0]!r} stands twice and counts once.")
            names = [found[key].name, *dict.fromkeys([*found[key].synonyms, *names[1:]])]
        for name in names:
            if owner.setdefault(name.casefold(), key) != key:
                other = found[owner[name.casefold()]].name
                raise MiradaError(f"The word {name!r} belongs to {other!r} and to {names[0]!r}: give it to one label.")
        found[key] = Label(names[0], tuple(names[1:]))
    if len(found) < 2:
        raise Misuse(f"There {'is one label' if found else 'are no labels'} in {text!r}: give two or more, such as "
                     "'cat,dog', or a file with one a line.")  # fmt: skip
    return list(found.values()), list(dict.fromkeys(notes))


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MiradaError(f"Cannot read the {what} in {str(path)!r} ({why(error)}): write one a line.") from error
    return [line.strip() for line in lines if line.strip()]


def everyday_words() -> list[str]:
    """A list of English words for common things."""
    return (resources.files("mirada") / "vocabularies" / "everyday.txt").read_text(encoding="utf-8").splitlines()


def template_names() -> list[str]:
    """The sets of templates that come with the package."""
    return list(_tables())


def templates(names: str) -> list[str]:
    """The templates of one set, of several joined by `+` ("en+es"), or of a file with one a line, each with a {}."""
    found: list[str] = []
    for name in names.split("+"):
        if name in _tables():
            found += _tables()[name]
        elif os.path.isfile(name):
            found += lines_of(Path(name), "templates")
        else:
            raise Misuse(f"There are no templates {name!r}: there are {', '.join(_tables())}, or name a file.")
    if wrong := [one for one in found if one.count("{}") != 1]:
        raise MiradaError(f"The template {wrong[0]!r} needs one {{}}, where the label goes.")
    return list(dict.fromkeys(found))


def class_vectors(
    model: Model, labels: Sequence[Label], chosen: Sequence[str], *, on_progress: Progress | None = None
) -> Tensor:
    """Unit vectors (C, D), float32: for each label the mean of the unit vectors of its sentences."""
    folder = cache_folder("texts")
    file = None if folder is None else folder / f"{_key(model)}.safetensors"
    known = {} if file is None else _read(file)
    names = [_name(label, chosen) for label in labels]  # equal ones for classes that are called the same
    sentences = {name: _sentences(label, chosen) for name, label in zip(names, labels, strict=True)}
    missing = {name: texts for name, texts in sentences.items() if name not in known}
    flat = [text for texts in missing.values() for text in texts]
    parts = []
    for start in range(0, len(flat), AT_ONCE):
        parts.append(model.encode_text(flat[start : start + AT_ONCE], normalize=True).cpu())
        if on_progress is not None:
            on_progress("reading labels", min(start + AT_ONCE, len(flat)), len(flat))
    if missing:
        vectors = torch.split(torch.cat(parts), [len(texts) for texts in missing.values()])
        fresh = {name: F.normalize(rows.mean(0), dim=0) for name, rows in zip(missing, vectors, strict=True)}
        if broken := [name for name, vector in fresh.items() if not bool(vector.isfinite().all())]:
            raise MiradaError(f"The text features of {len(broken)} labels are not finite numbers: the weights of "
                              f"{model.architecture!r} are damaged, or its training diverged.")  # fmt: skip
        known |= fresh
        if file is not None:
            _write(file, known)
    return torch.stack([known[name] for name in names])


def probabilities(model: Model, images: Tensor, vectors: Tensor, nothing: Tensor | None = None) -> Tensor:
    """Probabilities (B, C) of unit vectors of images (B, D) and labels (C, D).

    SigLIP's are those of its sigmoid, each label for itself. CLIP's are a softmax over the labels; with the vectors
    `nothing` (M, D) of sentences that name no label, these compete with them, and a row adds up to less than one: the
    rest is the probability that it is none of the labels.
    """
    logits = model.logit_scale * images @ vectors.mT
    if model.text is not None and model.text.logit_bias is not None:
        return (logits + model.logit_bias).sigmoid()
    if nothing is None:
        return logits.softmax(1)
    rivals = model.logit_scale * images @ nothing.mT
    return torch.cat([logits, rivals.amax(1, keepdim=True)], 1).softmax(1)[:, :-1]


def vectors_of_nothing(model: Model, chosen: Sequence[str]) -> Tensor:
    """Unit vectors (M, D) of sentences that name nothing in particular."""
    return class_vectors(model, [Label(word) for word in NOTHING], chosen)


def _tables() -> dict[str, list[str]]:
    text = (resources.files("mirada") / "vocabularies" / "templates.yaml").read_text(encoding="utf-8")
    tables: dict[str, list[str]] = yaml.safe_load(text)
    return tables


def _sentences(label: Label, chosen: Sequence[str]) -> list[str]:
    return [template.replace("{}", name) for name in (label.name, *label.synonyms) for template in chosen]


def _name(label: Label, chosen: Sequence[str]) -> str:
    text = json.dumps([FORMAT, *_sentences(label, chosen)])
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _key(model: Model) -> str:
    """A name for the text tower: its weights, its design and its vocabulary."""
    total = blake2b(digest_size=20)
    text = model.two_towers()
    assert model.tokenizer is not None
    facts = [text.design.to_dict(), model.tokenizer.vocabulary, torch.__version__, model.device.type]
    total.update(json.dumps(facts, sort_keys=True).encode())
    add_tensors(total, (pair for pair in text.state_dict().items() if not pair[0].startswith("logit_")))
    return total.hexdigest()


def _read(file: Path) -> dict[str, Tensor]:
    """What was kept, if it is there and whole."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            names = json.loads(opened.metadata()["names"])
            vectors = opened.get_tensor("vectors")
        os.utime(file)  # used now
        return dict(zip(names, vectors, strict=True))
    except (OSError, LookupError, TypeError, ValueError, safetensors.SafetensorError):
        return {}


def _write(file: Path, known: dict[str, Tensor]) -> None:
    """Keep them; a cache that cannot be written is not worth a word."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_atomically(file, {"vectors": torch.stack(list(known.values()))}, {"names": json.dumps(list(known))})
    except (OSError, MiradaError):
        return
