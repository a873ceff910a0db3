"""What the shipped model makes of drawings in a style it has never seen: finds them by words in two languages, sorts
them by words, shows where it looks; on a page of its own."""

import base64
import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mirada.data.images import Progress
from mirada.data.sources import Source, open_data
from mirada.evaluate.predict import evaluation_images, unit_features
from mirada.inspect.report.run import inspect
from mirada.loading import load
from mirada.model import Model
from mirada.saving import write_whole
from mirada.zero_shot import Label, class_vectors

__all__ = ["GROUPS", "QUERIES", "tour"]

REF = "mirada:emoji"
TOP = 6  # drawings shown for a query
QUERIES = {
    "en": ("smiling cat", "a red vehicle", "fruit", "sad face", "musical instrument", "rain"),
    "es": ("gato sonriente", "corazón", "árbol", "bandera de España", "zapato", "avión"),
}
GROUPS = {  # Unicode's groups, and words for them
    "Activities": ("sport", "game", "medal", "celebration"),
    "Animals & Nature": ("animal", "mammal", "bird", "flower", "plant"),
    "Flags": ("flag",),
    "Food & Drink": ("food", "fruit", "drink", "vegetable"),
    "Objects": ("tool", "clothing", "office", "book", "musical instrument"),
    "People & Body": ("person", "man", "woman", "hand", "family"),
    "Smileys & Emotion": ("face", "smile", "heart", "emotion"),
    "Symbols": ("symbol", "sign", "button", "arrow", "zodiac"),
    "Travel & Places": ("vehicle", "building", "place", "weather", "clock"),
}
LOOKED_AT = "Animals & Nature"


def tour(drawings: Path, out: Path, *, language: str, on_progress: Progress | None = None) -> dict[str, Any]:
    """Write `out`/index.html and `out`/look/index.html about the drawings of a folder with a subfolder per group.

    Returns {"page", "searches": [{"language", "query", "found": [names]}, ...], "sorted": share that words put into
    the right group, "sorted_of", "groups"}.
    """
    model = load(REF)
    source = open_data(drawings).splits["all"]
    images = evaluation_images(model, source)
    places, features = unit_features(model, images, np.arange(len(source)), on_progress=on_progress)
    searches = []
    for spoken, queries in QUERIES.items():
        scores = features @ model.encode_text(queries, normalize=True).T
        for number, query in enumerate(queries):
            best = scores[:, number].topk(min(TOP, len(places))).indices
            searches.append({"language": spoken, "query": query, "files": [source.path(places[row]) for row in best]})
    share = sorted_by_words(model, source, places, features)
    groups = source.classes or []
    pictured = [path for path in map(source.path, places) if Path(path).parent.name == LOOKED_AT][:3]
    pictured = pictured or [source.path(places[0])]
    look = inspect(REF, pictured, out=out / "look", words="cat,gato,eyes,tree,red", most=3, on_progress=on_progress)
    page = out / "index.html"
    environment = Environment(
        loader=FileSystemLoader(str(resources.files("mirada"))), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(picture=picture, title=title)
    text = environment.get_template("tour.html").render(
        language=language, searches=searches, share=share, count=len(places), groups=len(groups),
        look=os.path.relpath(look["page"], out), model=model,
    )  # fmt: skip
    write_whole(page, text)
    named = [{"language": one["language"], "query": one["query"], "found": [title(file) for file in one["files"]]}
             for one in searches]  # fmt: skip
    return {"page": str(page), "searches": named, "sorted": share, "sorted_of": len(places), "groups": len(groups)}


def sorted_by_words(
    model: Model, source: Source, places: np.ndarray[Any, np.dtype[np.int64]], features: torch.Tensor
) -> float:
    """The share of drawings whose group's words are nearest."""
    assert source.classes is not None
    assert source.labels is not None
    labels = [Label(words[0], words[1:]) for words in (GROUPS[name] for name in source.classes)]
    said = (features @ class_vectors(model, labels, ["{}"]).T).argmax(1)
    return float((said == torch.from_numpy(source.labels[places])).double().mean())


def picture(file: str) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(Path(file).read_bytes()).decode()}"


def title(file: str) -> str:
    """What a drawing is called."""
    return Path(file).stem.replace("_", " ")
