"""WebDataset shards: tar files in which the files of one sample share their name up to the first dot.

Each tar is indexed once when it is opened; after that, any sample is one seek away.
"""

import json
import os
import re
import tarfile
from typing import Any

import numpy as np

from mirada.data.dataset import Source, as_captions, why
from mirada.data.decode import UndecodableImage
from mirada.data.folder import is_image
from mirada.data.tables import Annotations, annotations, is_caption, numeric
from mirada.errors import MiradaError

__all__ = ["Shard", "expand_braces", "open_shard"]


def expand_braces(text: str) -> list[str]:
    """`name-{000..127}.tar` to 128 names; a text without braces to itself."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if match is None:
        return [text]
    first, last = match.groups()
    numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [name for number in numbers for name in expand_braces(text[: match.start()] + number + text[match.end() :])]


class Shard(Source):
    """The images of one tar file."""

    def __init__(self, path: str, images: list[tarfile.TarInfo], notes: Annotations) -> None:
        root, name = os.path.split(path)
        super().__init__(root, [f"{name}/{image.name}" for image in images], **notes)
        self.file = path
        self.offsets = np.array([image.offset_data for image in images], np.int64)
        self.sizes = np.array([image.size for image in images], np.int64)

    def read(self, index: int) -> bytes:
        try:
            with open(self.file, "rb") as file:
                file.seek(int(self.offsets[index]))
                return file.read(int(self.sizes[index]))
        except OSError as error:
            raise UndecodableImage(f"cannot be read: {why(error)}") from error


def open_shard(path: str) -> Source:
    """Index a tar file. Raises `MiradaError` if it is compressed, cut short or no tar file."""
    images: dict[str, tarfile.TarInfo] = {}  # sample -> its image
    texts: dict[str, dict[str, bytes]] = {}  # sample -> suffix -> contents
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                sample, suffix = _parts(member.name)
                if not member.isfile() or os.path.basename(sample) == "":
                    continue
                if suffix in ("cls", "txt", "json"):
                    contents = tar.extractfile(member)
                    texts.setdefault(sample, {})[suffix] = contents.read() if contents else b""
                elif is_image(member.name) and len(member.name) <= len(images.get(sample, member).name):
                    images[sample] = member  # 1.jpg rather than 1.mask.png
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, OSError) as error:
        raise MiradaError(
            f"Cannot read the shard {path!r}: {why(error)}; is it a whole tar file, not compressed?"
        ) from error
    rows = [_annotation(path, sample, texts.get(sample, {})) for sample in images]
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in ("label", "label_name", "captions")}
    used = {name: values for name, values in columns.items() if any(value not in (None, ()) for value in values)}
    return Shard(path, list(images.values()), annotations(used, path))


def _parts(name: str) -> tuple[str, str]:
    """Sample and suffix: `a/1.mask.png` to `a/1` and `mask.png`. Hidden files have an empty last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def _annotation(path: str, sample: str, texts: dict[str, bytes]) -> dict[str, Any]:
    try:
        about = json.loads(texts.get("json", b"{}"))
    except ValueError as error:
        raise MiradaError(f"Cannot read {sample}.json in the shard {path!r}: {error}.") from None
    about = about if isinstance(about, dict) else {}
    row = {name: about.get(name) for name in ("label", "label_name")}
    if "cls" in texts:
        row["label"] = numeric(texts["cls"].decode(errors="replace").strip())
    lines = texts.get("txt", b"").decode(errors="replace").splitlines()
    row["captions"] = as_captions(lines, *(value for name, value in about.items() if is_caption(name)))
    return row
