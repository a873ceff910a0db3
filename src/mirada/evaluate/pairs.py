"""Retrieval between images and captions, both ways: is what belongs together found first? The share of queries with a
right answer among the first K, as in CLIP's evaluation (arXiv:2103.00020, section 3.1.4 and appendix E)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mirada.data.dataset import Captions
from mirada.data.images import Images, Progress
from mirada.errors import MiradaError
from mirada.evaluate.predict import require_finite, some_of, unit_features
from mirada.model import Model

__all__ = ["PairScores", "pair_retrieval", "queries_of", "recalls"]

RANKS = (1, 5, 10)
AT_ONCE = 1 << 24  # similarities held at a time


class PairScores(NamedTuple):
    """{"text_to_image/R@1": share, ...}, and how many images and texts were asked with."""

    metrics: dict[str, float]
    images: int
    texts: int


def pair_retrieval(
    model: Model, images: Images, *, batch: int = 256, limit: int | None = None, on_progress: Progress | None = None
) -> PairScores:
    """Both ways, of the images that have a caption, or of `limit` of them, spread evenly. Equal captions of several
    images are one query with several right answers."""
    wanted = np.array([place for place, some in enumerate(images.captions(np.arange(len(images)))) if some], np.int64)
    if not len(wanted):
        raise MiradaError("None of these images has a caption: put a .txt beside each, or use a column caption.")
    kept, image = unit_features(model, images, some_of(wanted, limit), batch=batch, on_progress=on_progress)
    require_finite(image, images.usable[kept], model, images.source)
    texts, pairs = queries_of(images.captions(kept))
    text = model.encode_text(texts, normalize=True).cpu()
    if not bool(text.isfinite().all()):
        raise MiradaError("The features of captions are not finite numbers: the weights of the text tower are damaged, "
                          "or its training diverged; take an earlier checkpoint.")  # fmt: skip
    return PairScores(dict(recalls(image, text, pairs)), len(image), len(texts))


def queries_of(captions: Sequence[Captions]) -> tuple[list[str], Tensor]:
    """The different texts among the captions of some images, and int64 (p, 2): the numbers of a text and of an image
    that belong together."""
    texts: dict[str, int] = {}
    pairs = [(texts.setdefault(text, len(texts)), row) for row, some in enumerate(captions) for text in some]
    return list(texts), torch.tensor(pairs)


def recalls(image: Tensor, text: Tensor, pairs: Tensor) -> Iterator[tuple[str, float]]:
    """Of unit vectors (n, D) and (m, D); `pairs` (p, 2) are the numbers of a text and an image that belong together.
    Something else that is just as similar comes before what is right."""
    for name, asked, known, columns in (("text_to_image", text, image, (0, 1)), ("image_to_text", image, text, (1, 0))):
        ranks = []
        for start, part in enumerate(torch.split(asked, max(1, AT_ONCE // len(known)))):
            first = start * max(1, AT_ONCE // len(known))
            mine = pairs[(pairs[:, columns[0]] >= first) & (pairs[:, columns[0]] < first + len(part))]
            right = torch.zeros(len(part), len(known), dtype=torch.bool)
            right[mine[:, columns[0]] - first, mine[:, columns[1]]] = True
            with torch.autocast(part.device.type, enabled=False):  # whose bfloat16 has many ties
                similarity = part @ known.mT
            best = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
            ranks.append((~(similarity < best) & ~right).sum(1))  # what is not a number comes first
        rank = torch.cat(ranks)
        for most in RANKS:
            yield f"{name}/R@{most}", float((rank < most).double().mean())
