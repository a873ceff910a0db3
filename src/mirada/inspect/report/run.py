"""From a model and image files to a page: what `mirada inspect` does."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from mirada.backbones.vit import ViT
from mirada.data.dataset import why
from mirada.data.decode import UndecodableImage, decode
from mirada.data.images import Progress
from mirada.data.sources import list_images
from mirada.errors import MiradaError, Misuse
from mirada.inspect.filters import filter_components
from mirada.inspect.look import MOST_BLOCKS, Look, look
from mirada.inspect.position import position_similarity
from mirada.inspect.report.page import Seen, Subject, write_page
from mirada.loading import load
from mirada.model import Model
from mirada.preprocess import Preprocess
from mirada.zero_shot import Label, class_vectors
from mirada.zero_shot import templates as read_templates

__all__ = ["inspect"]

MOST, MOST_WORDS = 4, 24
SHARP = 640  # pixels of the longer side of a picture on the page, where the image has as many
MARK = b'<meta name="generator" content="Mirada">'


def inspect(
    ref: str, paths: Sequence[str | Path], *, out: str | Path, words: str | None = None, compare: str | None = None,
    most: int = MOST, layer: int | None = None, head: int | None = None, device: str = "cpu",
    on_progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write `out`/index.html: what one model, or two, see in the first `most` of the images that can be read.

    Returns {"out", "page", "bytes", "images": the paths that are shown, "skipped": [{"path", "reason"}, ...], "notes"}.

    Args:
        words: texts with commas between them, for a model with a text tower.
        compare: another model, shown beside the first.
        layer, head: what the page opens with, counted from 1; the last layer and all heads by default.

    Raises:
        MiradaError: no model or image, words without a text tower, weights that make no numbers.
        Misuse: a layer or head that the model does not have, no words.
    """
    texts = None if words is None else read_words(words)
    source = list_images(paths)
    page = Path(out) / "index.html"
    require_writable(page)
    names = [ref] if compare is None else [ref, compare]
    models = [load(name, device=device, on_progress=on_progress) for name in names]
    if texts is not None and all(model.text is None for model in models):
        models[0].two_towers()
    vectors = [word_vectors(model, texts or [], on_progress) for model in models]
    seen: list[Seen] = []
    skipped: list[dict[str, str]] = []
    tried = 0
    while tried < len(source) and len(seen) < most:
        if on_progress is not None:
            on_progress("looking", len(seen), min(most, len(source)))
        path = source.path(tried)
        try:
            image = decode(source.read(tried))
        except UndecodableImage as error:
            skipped.append({"path": path, "reason": error.reason})
        else:
            looks = tuple(look(model, image, texts) for model, texts in zip(models, vectors, strict=True))
            if not seen:
                require_choice(ref, looks[0], layer, head)
            pictures = tuple(sharp(model.preprocess, image) for model in models)
            fits = tuple(how_it_fits(model, image.size) for model in models)
            seen.append(Seen(path, pictures, looks, fits))
        tried += 1
    if not seen:
        raise MiradaError(f"None of the {len(source)} files can be read as an image; the first: {skipped[0]['path']} "
                          f"({skipped[0]['reason']}).")  # fmt: skip
    notes = [note for name, model in zip(names, models, strict=True) for note in notes_on(name, model, texts)]
    if tried < len(source):
        notes.append(f"{len(seen)} of {len(source):,} images are shown: name others, or raise --most, which takes "
                     "megabytes.")  # fmt: skip
    what = os.path.basename(seen[0].path) if len(seen) == 1 else f"{len(seen)} images"
    titles = [os.path.basename(os.path.abspath(name)) if os.path.isdir(name) else name for name in names]
    titles = names if len(set(titles)) < len(titles) else titles
    subjects = [subject(*one) for one in zip(titles, models, seen[0].looks, strict=True)]
    words_of_command = [
        "mirada", "inspect", ref, *map(str, paths), "--out", str(out), *(["--words", words] if words else []),
        *(["--compare", compare] if compare else []), *(["--most", str(most)] if most != MOST else []),
        *(["--layer", str(layer)] if layer is not None else []), *(["--head", str(head)] if head is not None else []),
    ]  # fmt: skip
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_page(
            page, title=f"{' and '.join(titles)} look{'s' if len(names) == 1 else ''} at {what}",
            command=shlex.join(words_of_command), subjects=subjects, images=seen,
            notes=notes + [f"Skipped {entry['path']}: {entry['reason']}." for entry in skipped],
            layer=None if layer is None else layer - 1, head=None if head is None else head - 1,
        )  # fmt: skip
    except OSError as error:
        raise MiradaError(f"Cannot write {str(page)!r} ({why(error)}): choose another --out.") from error
    return {
        "out": str(out), "page": str(page), "bytes": page.stat().st_size, "images": [one.path for one in seen],
        "skipped": skipped, "notes": notes,
    }  # fmt: skip


def read_words(text: str) -> list[str]:
    """What stands between the commas, each once. Raises `Misuse` for nothing, and for more than fit on a page."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words or len(words) > MOST_WORDS:
        raise Misuse(f"There are {len(words) or 'no'} words in {text!r}: give 1 to {MOST_WORDS}, such as 'cat,dog'.")
    return words


def word_vectors(model: Model, words: Sequence[str], on_progress: Progress | None) -> dict[str, Tensor]:
    """Unit vectors of the words in English sentences; none for a model without a text tower."""
    if model.text is None or not words:
        return {}
    vectors = class_vectors(model, [Label(word) for word in words], read_templates("en"), on_progress=on_progress)
    return dict(zip(words, vectors, strict=True))


def require_writable(page: Path) -> None:
    """Raise `MiradaError` where something else is in the way of the page."""
    if page.parent.exists() and not page.parent.is_dir():
        raise MiradaError(f"{str(page.parent)!r} is a file: give --out a folder.")
    if page.exists() and MARK not in page.read_bytes()[:2000]:
        raise MiradaError(f"{str(page)!r} is there and was not written by Mirada: choose another --out.")


def require_choice(ref: str, seen: Look, layer: int | None, head: int | None) -> None:
    """Raise `Misuse` for a layer or head, counted from 1, that there is not."""
    layers = len(seen.layers)
    if (layer is not None or head is not None) and not layers:
        raise Misuse(f"{ref!r} has no attention, so no layers and heads to choose: leave --layer and --head out.")
    if layer is not None and not 1 <= layer <= layers:
        raise Misuse(f"There is no layer {layer} in {ref!r}: its {layers} are counted from 1 to {layers}.")
    if head is not None:
        heads = seen.layers[-1 if layer is None else layer - 1].attention.shape[0]
        if not 1 <= head <= heads:
            raise Misuse(f"There is no head {head} in that layer of {ref!r}: its {heads} are counted from 1 to "
                         f"{heads}.")  # fmt: skip


def subject(name: str, model: Model, seen: Look) -> Subject:
    """What the page says of a model."""
    backbone = model.backbone
    height, width = model.preprocess.size
    rows, columns = seen.patches.shape[:2]
    facts: dict[str, str] = {} if name == model.architecture else {"architecture": model.architecture}
    facts["parameters"] = f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:,.1f} million"
    facts["sees"] = f"{height} × {width} pixels"
    facts["patches at its end"] = f"{rows} × {columns}"
    positions = filters = None
    instead = ""
    if seen.layers:
        heads = sorted({layer.attention.shape[0] for layer in seen.layers})
        facts["attention"] = f"{len(seen.layers)} layers of {' to '.join(map(str, heads))} heads"
    else:
        instead = (f"{type(backbone).__name__} has no attention. Below is what else there is to see: which patches of "
                   "its last layer are alike, and what it takes for objects.")  # fmt: skip
    if isinstance(backbone, ViT):
        if backbone.positions in ("learned", "sincos"):
            positions = position_similarity(backbone, smaller(seen.layers[-1].grid))
        filters = filter_components(backbone)
    return Subject(name, facts, positions, filters, instead)


def smaller(grid: tuple[int, int]) -> tuple[int, int]:
    """At most `MOST_BLOCKS` on a side."""
    return min(grid[0], MOST_BLOCKS), min(grid[1], MOST_BLOCKS)


def notes_on(name: str, model: Model, words: Sequence[str] | None) -> list[str]:
    """What a reader has to know about a model."""
    notes = []
    if not model.provenance:
        notes.append(f"{name} has random weights: this is what a model looks at before it has learned anything.")
    if words is not None and model.text is None:
        notes.append(f"{name} has no text tower, so there are no words for it.")
    return notes


def how_it_fits(model: Model, size: tuple[int, int]) -> str:
    """How an image of that width and height became what the model sees."""
    preprocess = model.preprocess
    height, width = preprocess.size
    left, top, right, bottom = preprocess.seen(*size)
    if size == (width, height) and (left, top, right, bottom) == (0, 0, 1, 1):
        return f"{width} × {height} pixels, as the model sees them"
    longer, shorter = max(size), min(size)
    verb = {"squash": "squashed", "pad": "fitted", "none": "cut", "crop": "resized"}[preprocess.resize]
    if preprocess.resize == "crop" and shorter < min(preprocess.size):
        verb = "enlarged"
    cut = " (only its middle is seen)" if left > 0 or top > 0 or right < 1 or bottom < 1 else ""
    stride = model.backbone.stride
    tiny = f"; it is smaller than one patch of {stride} pixels, so there is little to see" if longer < stride else ""
    return f"{size[0]:,} × {size[1]:,} pixels, {verb} to the model’s own {width} × {height}{cut}{tiny}"


def sharp(preprocess: Preprocess, image: Image.Image) -> Image.Image:
    """The part of the image that the model sees, with more pixels than it sees where the image has them."""
    box = preprocess.box or preprocess.size
    times = max(1, min(SHARP // max(preprocess.size), min(image.size) // max(box)))
    if preprocess.resize == "none":
        times = 1
    height, width = preprocess.size
    larger = replace(preprocess, size=(height * times, width * times), box=(box[0] * times, box[1] * times))
    return Image.fromarray(larger.pixels(image).permute(1, 2, 0).numpy())
