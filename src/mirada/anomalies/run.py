"""What `mirada anomalies` does: open a model, normal images and others, and put these in order of how unusual they
are."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirada.anomalies.judge import Judged, judge, limit_of, read_method
from mirada.anomalies.overlay import overlay
from mirada.anomalies.patch_core import heat_maps
from mirada.data.dataset import Joined, why
from mirada.data.folder import is_image
from mirada.data.images import Progress
from mirada.data.sources import Source, list_images, open_data
from mirada.errors import MiradaError, Misuse
from mirada.evaluate.predict import evaluation_images
from mirada.loading import load
from mirada.model import Model

__all__ = ["anomalies"]


def anomalies(
    data: str, normal: str, *, model: str, method: str | None = None, top: int | None = None, out: str | None = None,
    seed: int = 0, batch: int = 64, device: str = "cpu", exact_pixels: bool = False, strict: bool = False,
    on_progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:  # fmt: skip
    """[{"path", "score"}, ...] of the images of `data`, the most unusual first; the files that could not be used as
    [{"path", "reason"}, ...]; and notes for a person.

    A score of 1 is what 99 of 100 normal images stay below, each of them scored against the others: what scores more
    deserves a look. All images of `normal` are taken for normal, whatever classes and splits they are in. An image of
    `data` that is one of them, by its path, is compared with the others: with the same folder twice, one finds what is
    unusual in it.

    Args:
        method: see `mirada.anomalies.judge.METHODS`; "patches" by default where there is `out`, and else "knn".
        top: how many are told, all by default.
        out: a folder for heat maps of those, `0001-NAME.png` and so on; each answer then has a "heat_map". Only the
            method "patches" has them.
        seed: of what is drawn, and of the weights of a size name.

    Raises:
        Misuse: an unknown method, or `out` for one without heat maps.
        MiradaError: what `judge` raises, and what opening the model and the data does.
    """
    chosen = read_method(method or ("knn" if out is None else "patches"))
    if out is not None:
        if chosen != "patches":
            raise Misuse(f"Heat maps come of patches, and the method {chosen} has none: use --method patches, or leave "
                         "--out out.")  # fmt: skip
        require_empty(Path(out))
    with torch.random.fork_rng(devices=[]):  # a size name has random weights: the same ones each time
        torch.manual_seed(seed)
        network = load(model, device=device, on_progress=on_progress)
    skipped: list[dict[str, str]] = []
    known, asked = (open_all(path, strict, skipped) for path in (normal, data))
    own = same_images(known, asked)
    judged = judge(network, known, asked, chosen, own=own, seed=seed, batch=batch, exact_pixels=exact_pixels,
                   strict=strict, on_progress=on_progress)  # fmt: skip
    limit = limit_of(judged)
    order = np.argsort(-judged.scores, kind="stable")[:top]
    answers = [{"path": asked.path(int(judged.places[row])), "score": round(float(judged.scores[row]) / limit, 6)}
               for row in order]  # fmt: skip
    if out is not None:
        files = draw(network, asked, judged, order, limit, Path(out), exact_pixels, on_progress)
        answers = [answer | {"heat_map": file} for answer, file in zip(answers, files, strict=True)]
    skipped += judged.skipped
    return answers, unique(skipped), notes_of(judged, own, len(asked))


def require_empty(out: Path) -> None:
    """Make the folder. Raises `MiradaError` if there is something in it: heat maps of two runs would mix."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        full = any(entry.name[0] != "." for entry in out.iterdir())
    except OSError as error:
        raise MiradaError(f"Cannot write to {str(out)!r} ({why(error)}): give --out a new folder.") from error
    if full:
        raise MiradaError(f"{str(out)!r} holds other things, and heat maps of two runs would mix: give --out a new "
                          "folder.")  # fmt: skip


def open_all(path: str, strict: bool, skipped: list[dict[str, str]]) -> Source:
    """All images of any form of data, whatever split they are in; or one image file. What cannot be used is added to
    `skipped`."""
    if os.path.isfile(path) and is_image(path):
        return list_images([path])
    dataset = open_data(path, strict=strict, new_classes=True, everything=True)
    skipped += [entry._asdict() for entry in dataset.skipped]
    sources = list(dataset.splits.values())
    return sources[0] if len(sources) == 1 else Joined(sources)


def same_images(known: Source, asked: Source) -> NDArray[np.int64]:
    """(len(asked),) which of `known` each is, by its path; -1 for none."""
    there = {os.path.realpath(known.path(index)): index for index in range(len(known))}
    return np.array([there.get(os.path.realpath(asked.path(index)), -1) for index in range(len(asked))], np.int64)


def notes_of(judged: Judged, own: NDArray[np.int64], asked: int) -> list[str]:
    """What a person should know of the scores."""
    notes = []
    if mine := int((own >= 0).sum()):
        them = "All images" if mine == asked else f"{mine:,} of the {asked:,} images"
        notes.append(f"{them} are among the normal ones: each of these is compared with the others.")
    if judged.known < 20:
        notes.append(f"There are {judged.known} normal images only: what a score of 1 means is uncertain.")
    return notes


def unique(skipped: list[dict[str, str]]) -> list[dict[str, str]]:
    """Each path once."""
    return list({entry["path"]: entry for entry in skipped}.values())


def _short(name: str) -> str:
    """Its beginning, which fits into the 255 bytes of a file's name with what else is in it."""
    return os.fsencode(name[:80])[:200].decode(errors="ignore")


def draw(
    model: Model, asked: Source, judged: Judged, order: NDArray[np.int64], limit: float, out: Path, exact_pixels: bool,
    on_progress: Progress | None,
) -> list[str]:  # fmt: skip
    """Write the heat maps of some rows in this order; their files."""
    assert judged.maps is not None
    images = evaluation_images(model, asked, exact_pixels=exact_pixels, keep=False)
    digits = max(4, len(str(len(order))))
    files = []
    for rank, row in enumerate(order.tolist(), 1):
        place = int(judged.places[row])
        pixels, _, _ = images.get([place])
        heat = heat_maps(judged.maps[row : row + 1] / limit, (pixels.shape[-2], pixels.shape[-1]))[0]
        file = out / f"{rank:0{digits}}-{_short(Path(asked.path(place)).stem)}.png"
        part = file.with_name(f".{file.name}.part")
        try:
            overlay(pixels[0], heat).save(part, "PNG")
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
        files.append(str(file))
        if on_progress is not None:
            on_progress("drawing heat maps", rank, len(order))
    return files
