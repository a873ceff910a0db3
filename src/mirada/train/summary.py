"""What a finished run shows: its numbers, its confusions and its worst mistakes, gathered for the report page."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mirada.data.images import Images
from mirada.errors import MiradaError
from mirada.evaluate.accuracy import confusion
from mirada.evaluate.predict import Predictions
from mirada.inspect.rollout import attention_map
from mirada.model import Model
from mirada.train.folder import RunFolder, machine
from mirada.train.report import Mistake, write_report
from mirada.train.settings import Settings

__all__ = ["report"]


def report(
    folder: RunFolder, result: dict[str, Any], *, model: Model, settings: Settings, validation: Images | None,
    found: Predictions | None,
) -> Path:  # fmt: skip
    """Write the run's `report.html`; `found` are the predictions on the validation split, None without labels."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    summary: dict[str, str | float | int] = {
        "model": model.architecture, "parameters": parameters, "objective": settings.objective,
        "images seen": result["images"], "steps": result["steps"], "seconds": result["train_seconds"],
        "precision": settings.precision, "machine": machine(),
    }  # fmt: skip
    if (first := next((key for key in result["metrics"] if key.endswith("/text_to_image/R@1")), None)) is not None:
        summary |= {"split": first.partition("/")[0], "count": result["measured"]}
        summary |= {"found": result["metrics"][first], "found_of_five": result["metrics"][first[:-1] + "5"]}
    counts, mistakes = None, []
    if found is not None and validation is not None and model.classes:
        name = next(key for key in result["metrics"] if key.endswith("/accuracy"))
        summary |= {"split": name.partition("/")[0], "accuracy": result["metrics"][name],
                    "low": result["interval"][0], "high": result["interval"][1],
                    "count": int((found.labels >= 0).sum())}  # fmt: skip
        counts = confusion(found, len(model.classes))
        mistakes = worst_mistakes(model, validation, found)
    text = folder.config.read_text(encoding="utf-8")
    command = str(yaml.safe_load(text).get("command", ""))
    last = {"step": result["steps"], **result["metrics"]}
    return write_report(
        folder.report, title=folder.path.name, command=command, summary=summary, metrics=[*folder.rows(), last],
        classes=model.classes or [], confusion=counts, mistakes=mistakes, skipped=result["skipped"], config_text=text,
    )  # fmt: skip


def worst_mistakes(model: Model, validation: Images, found: Predictions, most: int = 24) -> list[Mistake]:
    """The wrong answers the model was surest of, as pictures with the attention of the model over them."""
    assert model.classes is not None
    confidence, said = found.logits.softmax(1).max(1)
    wrong = np.flatnonzero((said.numpy() != found.labels) & (found.labels >= 0))
    wrong = wrong[np.argsort(-confidence.numpy()[wrong], kind="stable")][:most]
    if not len(wrong):
        return []
    rows = np.searchsorted(validation.usable, found.places[wrong])
    pixels, _, good = validation.get(rows)
    wrong = wrong[np.isin(rows, good)]
    images = model.preprocess.normalise(pixels).to(model.device)
    attention = [attention_of(model, image[None]) for image in images]
    return [
        Mistake(
            image=Image.fromarray(pixels[number].permute(1, 2, 0).numpy()),
            attention=attention[number],
            truth=model.classes[found.labels[place]], prediction=model.classes[int(said[place])],
            confidence=float(confidence[place]), path=validation.source.path(int(found.places[place])),
        )
        for number, place in enumerate(torch.from_numpy(wrong).tolist())
    ]  # fmt: skip


def attention_of(model: Model, image: Tensor) -> NDArray[np.float32] | None:
    """Where the model looks in one image (1, 3, height, width); None without attention, and where there are so many
    patches that it does not fit into memory."""
    try:
        found = attention_map(model.backbone, image)
    except MiradaError:
        return None
    return None if found is None else found[0].float().cpu().numpy()
