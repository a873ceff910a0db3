"""A folder of images: a subfolder per class, or flat; with or without train/, val/ and test/ above.

Masks, images of where the object is, are in a folder `masks` beside the images, or beside the folder `images` that they
are in, at the same path: `masks/cat/1.png` is that of `cat/1.jpg` or of `images/cat/1.jpg`. Beside split folders,
`ground_truth/crack/1_mask.png` is that of `test/crack/1.png`, as MVTec AD has it (Bergmann et al. 2019).
"""

import errno
import os
import re
from collections.abc import Sequence
from os.path import join, splitext

from mirada.data.dataset import Captions, Files, Skipped, Source, as_captions, why
from mirada.data.decode import IMAGE_SUFFIXES
from mirada.errors import MiradaError

__all__ = ["is_image", "open_folder", "split_of", "suffix", "visible_files"]

GROUND_TRUTH = "ground_truth"


def split_of(stem: str) -> str | None:
    """The split a file or folder name stands for: "train", "valid", "val2017", "test-00000-of-00003"; or None."""
    match = re.fullmatch(r"(train|val|valid|validation|test)([-_.]?\d+(-of-\d+)?)?", stem.lower())
    return None if match is None else "val" if match[1].startswith("val") else match[1]


def suffix(path: str) -> str:
    return splitext(path)[1].lower()


def is_image(path: str) -> bool:
    return suffix(path) in IMAGE_SUFFIXES


def visible_files(root: str) -> list[str]:
    """Every file below `root` that is not hidden, sorted, relative to `root`. Links are followed, each folder once: by
    its own name, if that is below `root` too."""
    found: list[str] = []
    waiting, linked, seen = [""], list[str](), set()
    while waiting or linked:
        inside = waiting.pop() if waiting else linked.pop()
        folder = join(root, inside)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    kind = found if not _is_folder(entry) else linked if entry.is_symlink() else waiting
                    kind.append(join(inside, entry.name))
        except OSError as error:
            raise MiradaError(
                f"Cannot read the folder {folder!r}: {why(error)}; give yourself access to it, or move it elsewhere."
            ) from error
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere, or is called as a picture and cannot be followed, is none: it cannot be read. Raises
    `OSError` for another that may be a folder."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG) or is_image(entry.name):
            return False
        raise


def open_folder(root: str, files: Sequence[str], skipped: list[Skipped]) -> dict[str, Source]:
    """The splits of a folder, whose `visible_files` are given."""
    images, masks, start = _without_masks([file for file in files if is_image(file)], "")
    texts = {splitext(file)[0]: file for file in files if suffix(file) == ".txt"}
    below: dict[str, list[str]] = {}  # first folder -> images anywhere below it; "" for those beside the folders
    for image in images:
        first, separator, _ = image[start:].partition(os.sep)
        below.setdefault(first if separator else "", []).append(image)
    folders = _split_folders(root, [name for name in below if name])
    if not folders:
        return {"all": _labelled(root, images, start, texts, masks)}
    if "test" in folders:
        masks |= _ground_truth(below, folders["test"], start)
    reason = f"outside the split folders {', '.join(folders.values())}"
    outside = [name for name in below if name and name not in folders.values()] + below.get("", [])
    skipped += [Skipped(join(root, name), reason) for name in outside]
    splits: dict[str, Source] = {}
    for split, name in folders.items():
        inside, more, begin = _without_masks(below[name], images[0][:start] + name + os.sep)
        splits[split] = _labelled(root, inside, begin, texts, masks | more)
    return splits


def _without_masks(images: list[str], base: str) -> tuple[list[str], dict[str, str], int]:
    """Images below `base` that are no masks of others; the mask of each image that has one; and where the rest of
    their paths begins. A folder `masks` in which any file goes with no image is a class like any other."""
    start = len(base)
    masks = [image for image in images if image.startswith(join(base, "masks", ""))]
    if not masks:
        return images, {}, start
    others = [image for image in images if not image.startswith(join(base, "masks", ""))]
    inside = join(base, "images", "")
    begin = len(inside) if others and all(image.startswith(inside) for image in others) else start
    known = {splitext(image[begin:])[0]: image for image in others}
    named = {splitext(mask[start + len(join("masks", "")) :])[0]: mask for mask in masks}
    if named.keys() - known.keys():
        return images, {}, start
    return others, {known[name]: mask for name, mask in named.items()}, begin


def _ground_truth(below: dict[str, list[str]], test: str, start: int) -> dict[str, str]:
    """The masks of test images that MVTec AD's layout has in a folder of its own, which is then taken out of `below`.
    Empty if any file in it is no mask."""
    marked = {splitext(image[start:])[0].partition(os.sep)[2]: image for image in below.get(GROUND_TRUTH, [])}
    images = {splitext(image[start:])[0].partition(os.sep)[2]: image for image in below[test]}
    masks = {images.get(name.removesuffix("_mask"), ""): mask for name, mask in marked.items()}
    if "" in masks:
        return {}
    below.pop(GROUND_TRUTH, None)
    return masks


def _split_folders(root: str, names: Sequence[str]) -> dict[str, str]:
    """Split -> folder name. Empty if the folders are classes: a single "train" among others is a vehicle."""
    folders: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split and folders.setdefault(split, name) != name:
            raise MiradaError(f"Both {folders[split]!r} and {name!r} in {root!r} mean {split}: put them together.")
    return folders if len(folders) > 1 or len(folders) == len(names) else {}


def _labelled(root: str, images: list[str], start: int, texts: dict[str, str], masks: dict[str, str]) -> Source:
    """Images with their masks, the first folder after `start` characters as their class, and the lines of the .txt
    beside them as captions."""
    keys = [image[start:].partition(os.sep)[0] if os.sep in image[start:] else None for image in images]
    captions = [_captions(root, texts.get(splitext(image)[0])) for image in images] if texts else None
    return Files(root, images, keys, captions=captions, masks=[masks.get(image) for image in images])


def _captions(root: str, text: str | None) -> Captions:
    if text is None:
        return ()
    try:
        with open(join(root, text), encoding="utf-8", errors="replace") as file:
            return as_captions(file.read().splitlines())
    except OSError as error:
        raise MiradaError(f"Cannot read the captions in {join(root, text)!r}: {why(error)}; give yourself access to "
                          "it, or take it out.") from error  # fmt: skip
