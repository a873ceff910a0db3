"""A model in the layout of another library, written so that it gives the same outputs there, or refused.

A layout proposes its small files and the shapes of a few tensors; the plan that reads published checkpoints of that
layout says what network those are, and by which table its tensors are called. Only if that is the model's own network,
option by option, is anything written, by the same table read backwards.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from mirada import __version__
from mirada.backbones.coatnet import VARIANTS
from mirada.checkpoints import hf as hf_checkpoints
from mirada.checkpoints import table
from mirada.checkpoints import timm as timm_checkpoints
from mirada.checkpoints.files import read_json
from mirada.data.dataset import why
from mirada.errors import MiradaError, Misuse
from mirada.export import hf, timm
from mirada.export.parts import Parts, Proposal, Written, options_of, take_apart
from mirada.export.pixels import differences
from mirada.model import Design, Model
from mirada.saving import save_atomically

__all__ = ["LAYOUTS", "Exported", "export"]

LAYOUTS = {  # name -> its library, who proposes, and who plans
    "timm": ("timm", timm.propose, timm_checkpoints.plan),
    "hf": ("transformers", hf.propose, hf_checkpoints.plan),
}
LATER = ("onnx", "openvino")
TRAINING_ONLY = {"drop_path", "layer_scale", "resample"}  # options that no output at the model's own size depends on
MARK = "exported_by"  # the key of config.json that says a folder is ours to replace


class Exported(NamedTuple):
    """What was written, and what to know about it."""

    out: Path
    format: str
    architecture: str
    files: list[str]
    notes: list[str]


def export(model: Model, layout: str, folder: str | os.PathLike[str]) -> Exported:
    """Write a model as another library saves its own, whole or not at all.

    Args:
        model: any.
        layout: "timm", for `timm.create_model("local-dir:FOLDER", pretrained=True)`; or "hf", for transformers'
            `AutoModel`, `AutoModelForImageClassification` and `AutoImageProcessor`.
        folder: where; a new folder, an empty one, or one that this function wrote before.

    Returns what was written; its notes say where the other library parts from the model, never in its outputs for a
    prepared image of its own size.

    Raises:
        MiradaError: the library has no such network (the sentence names the option, and what to do), or the folder
            cannot be written.
    """
    require_layout(layout)
    target = Path(os.path.abspath(folder))
    require_replaceable(target)
    library, propose, plan = LAYOUTS[layout]
    parts = take_apart(model)
    proposal: Proposal = propose(parts)
    what = f"The model does not fit {library}'s {proposal.architecture}"
    proposal = proposal._replace(texts=_marked(proposal.texts))
    files = Written(proposal.texts)
    understood = plan(target.name, files, proposal.telltales)
    notes = [*proposal.parts.notes, *_compare(proposal.parts, understood.design, library, proposal.architecture)]
    tensors = table.write(understood.table, proposal.parts.tensors, what) | proposal.extra
    again = plan(target.name, files, {name: tuple(tensor.shape) for name, tensor in tensors.items()}).design
    if again != understood.design:
        raise MiradaError(f"{what}: it would be read as {again.architecture}, not as {understood.design.architecture}.")
    _write(target, proposal.texts, tensors)
    return Exported(target, layout, proposal.architecture, sorted([*proposal.texts, "model.safetensors"]), notes)


def require_layout(layout: str) -> None:
    """Raise `Misuse` for a format that there is not, or not yet."""
    if layout in LATER:
        raise Misuse(f"--format {layout} is not there yet: this version writes {' and '.join(LAYOUTS)}.")
    if layout not in LAYOUTS:
        raise Misuse(f"There is no format {layout!r}: choose {' or '.join(LAYOUTS)}.")


def require_replaceable(target: Path) -> None:
    """Raise `MiradaError` for a folder that holds what an export did not write."""
    if not os.path.lexists(target):
        return
    if target.is_dir() and os.path.samefile(target, os.curdir):
        raise MiradaError(f"{target} is the folder you are in, which an export would replace: choose another --out.")
    if not target.is_dir() or target.is_symlink():
        raise MiradaError(f"{target} is not a folder: choose another --out.")
    try:
        names = sorted(entry.name for entry in target.iterdir())
    except OSError as error:
        raise MiradaError(f"Cannot list {target} ({why(error)}): choose another --out.") from error
    if not names:
        return
    config = target / "config.json"
    try:
        ours = MARK in ((read_json(config) if config.is_file() else None) or {})
    except MiradaError:
        ours = False
    if foreign := [name for name in names if not ours or name not in hf.NAMES]:
        raise MiradaError(
            f"{target} holds {foreign[0]}{' and more' if len(foreign) > 1 else ''}, which no export wrote: choose "
            "another --out, or empty it first."
        )


def _compare(parts: Parts, theirs: Design, library: str, architecture: str) -> list[str]:
    """Notes on what differs without mattering. Raises `MiradaError` for what matters."""
    ours = parts.design
    family, options = options_of(theirs.architecture)
    if family != parts.family:
        raise MiradaError(f"{library}'s {architecture} is a {family}, and this model a {parts.family}.")
    wanted, free = parts.options, TRAINING_ONLY
    if family == "regnet":  # the same plan can be said by other numbers
        options, wanted = ({"stages": timm.stages_of(each)} for each in (parts._replace(options=options), parts))
    elif family == "coatnet" and VARIANTS[wanted["variant"]].bias_width is not None:  # has nothing of a certain size
        free = free | {"image_size"}
    for option, value in wanted.items():
        same = options[option] == value or (isinstance(value, (tuple, list)) and tuple(options[option]) == tuple(value))
        if not same and option not in free:
            raise MiradaError(
                f"{library} has no network with {option}={value!r} that is like this one otherwise: its {architecture} "
                f"has {option}={options[option]!r}."
            )
    facts: dict[str, tuple[Any, Any]] = {
        "classes": (ours.classes, theirs.classes), "projection": (ours.projection, theirs.projection),
    }  # fmt: skip
    if ours.classes is not None:
        facts["head_input"] = ours.head_input, theirs.head_input
    if ours.text is not None and theirs.text is not None:
        text = ours.text.to_dict() | {"tokenizer": ours.text.tokenizer.context}
        facts["text"] = text, theirs.text.to_dict() | {"tokenizer": theirs.text.tokenizer.context}
    elif ours.text is not None:
        facts["text"] = "a text tower", None
    for name, (mine, read) in facts.items():
        if mine != read:
            raise MiradaError(f"{library}'s {architecture} has another {name} than this model: {read}, not {mine}.")
    notes = differences(ours.preprocess, theirs.preprocess, library)
    if parts.options.get("positions") == "learned" and options.get("resample") != parts.options.get("resample"):
        notes.append(f"{library} interpolates positions its own way for images of another size")
    return notes


def _marked(texts: dict[str, str]) -> dict[str, str]:
    """With the line in config.json that says who wrote it."""
    config = {MARK: f"mirada {__version__}"} | json.loads(texts["config.json"])
    return texts | {"config.json": json.dumps(config, indent=2) + "\n"}


def _write(target: Path, texts: dict[str, str], tensors: dict[str, Any]) -> None:
    """All files in a folder beside the target, which then takes its place."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        part.mkdir(parents=True)
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")
        save_atomically(part / "model.safetensors", tensors, {"format": "pt"})
        if target.exists():
            os.replace(target, old)
        os.replace(part, target)
    except OSError as error:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise MiradaError(f"Cannot write {target} ({why(error)}): choose another --out.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
