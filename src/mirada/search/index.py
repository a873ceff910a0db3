"""`Index`: semantic search over pictures. What the commands and the server are made of."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mirada.data.images import Progress
from mirada.errors import MiradaError, Misuse
from mirada.model import Model
from mirada.search.build import Changes, bring_up_to_date, writing
from mirada.search.calibrate import Background, invented, measure, pieces, rare, standing_out
from mirada.search.clusters import heaps
from mirada.search.duplicates import duplicate_groups
from mirada.search.embedder import DEFAULT, Embedder, open_model, reference
from mirada.search.filters import condition
from mirada.search.places import places
from mirada.search.query import Part, parse
from mirada.search.scan import scan
from mirada.search.table import (
    Facts,
    create_table,
    exists,
    location,
    open_table,
    require_room,
    rows_of,
    stamp,
    storage,
)
from mirada.search.vectors import Nearest, Vectors, as_stored, build_index_apart, needs_index
from mirada.zero_shot import everyday_words

__all__ = ["SHOWN", "SORTS", "Hit", "Index", "NoSuchPicture"]

SHOWN = ("id", "path", "size", "modified", "taken", "date", "latitude", "longitude", "camera", "width", "height")
SORTS = ("path", "size", "modified", "taken", "date", "width", "height", "camera")
SAME = 0.98  # cosine from which on a picture counts as the one that was asked with
LIKE, UNLIKE = 0.75, 0.25  # Rocchio's weights
NEIGHBOURS = 10  # of which a lonely picture has few that are like it
GROWN = 0.1  # share by which an index may grow before its background is measured anew


class NoSuchPicture(MiradaError):  # noqa: N818  # it may have been there a moment ago
    """The index has no row of that id."""

    def __init__(self, number: int) -> None:
        super().__init__(f"The index has no row {number}: it may have been removed; search again.")


class Hit(NamedTuple):
    """One picture that was found.

    Attributes:
        id: of its row.
        path: of its file.
        score: cosine of the query and the picture.
        match: how sure it is that the query means something here, from 0 to 1.
    """

    id: int
    path: str
    score: float
    match: float


class Index:
    """An index that is there.

    Args:
        where: its folder, or an address such as s3://bucket/name.
        model: the model it was made with, or its reference; the one that the index names by default.
        device: where the model computes.

    Raises:
        MiradaError: there is none, or it is of another version.
    """

    def __init__(self, where: str | os.PathLike[str], *, model: str | Model | None = None, device: str = "cpu",
                 exact_up_to: int | None = None) -> None:  # fmt: skip
        self.where = location(where)
        self.table, self.made = open_table(self.where)
        self.vectors = Vectors(self.table, self.where, exact_up_to)
        self.facts = Facts(self.where)
        self._model, self._device = model, device
        self._stamp = stamp(self.where)
        self._embedder: Embedder | None = None
        self._background: Background | None = None

    def __len__(self) -> int:
        with storage(self.where):
            self.table.checkout_latest()
            return int(self.table.count_rows())

    def is_there(self) -> bool:
        """Whether it is still the index that was opened, and not another one in its place."""
        return stamp(self.where) == self._stamp

    @property
    def embedder(self) -> Embedder:
        """The model, loaded when it is first needed. Raises `MiradaError` for another one than the index was made
        with."""
        if self._embedder is None:
            self.require(open_model(self._model or self.made.model, device=self._device))
        assert self._embedder is not None
        return self._embedder

    def search(
        self, query: str | Image.Image | Sequence[Part] = "", *, k: int = 10, where: str | None = None,
        like: Sequence[str | int] = (), unlike: Sequence[str | int] = (), everything: bool = False, folder: str = "",
    ) -> list[Hit]:  # fmt: skip
        """The pictures that match, best first; none if nothing does.

        Args:
            query: words, a path, or a weighted sum of such, see `mirada.search.query`; or its terms; or a picture.
            k: at most so many.
            where: a condition on path, date, size and so on, see `mirada.search.filters`.
            like, unlike: pictures (paths, or ids of rows) that the query is moved towards, and away from (Rocchio 1971,
                "Relevance feedback in information retrieval").
            everything: the nearest ones, whether they match or not.
            folder: where paths are seen from; the working folder by default.

        Raises:
            Misuse: a query or condition that cannot be read.
            MiradaError: a picture that cannot be read, or words for a model that sees pictures only.
        """
        if k < 1:
            raise Misuse(f"Cannot find {k} pictures: ask for 1 or more.")
        allowed = None if where is None else condition(where)
        vector, parts = self.vector(query, _seen_from(folder, like), _seen_from(folder, unlike), folder)
        self.vectors.refresh()
        if not self.vectors.rows:
            return []
        found = self.vectors.nearest(vector, k, allowed)
        match = self._match(vector, found, parts)
        kept = np.ones(len(match), bool) if everything else match >= 0.5
        paths = self._paths(found.ids[kept].tolist())
        return [Hit(number, paths[number], round(float(score), 4), round(float(share), 4))
                for number, score, share in zip(found.ids[kept].tolist(), found.scores[kept], match[kept], strict=True)
                if number in paths]  # fmt: skip

    def vector(
        self, query: str | Image.Image | Sequence[Part], like: Sequence[str | int] = (),
        unlike: Sequence[str | int] = (), folder: str = "",
    ) -> tuple[NDArray[np.float32], list[tuple[str, NDArray[np.float32]]]]:  # fmt: skip
        """The query as a unit vector (D,), and, if words alone made it, those that are asked for and their vectors."""
        if isinstance(query, Image.Image):
            parts = [Part(1.0, vector=self._encode_images([query])[0])]
        elif not isinstance(query, str):
            parts = list(query)
        else:
            parts = parse(query, folder) if query.strip() or not (like or unlike) else []
        if not like and not any(part.weight > 0 for part in parts):
            raise Misuse("The query says only what to leave out: say also what to look for.")
        rows = self._encode(parts)
        by_words = all(part.words is not None for part in parts) and not like
        asked = [(part.words or "", row) for part, row in zip(parts, rows, strict=True) if part.weight > 0]
        asked = asked if by_words else []
        if len(rows) == 1 and not like and not unlike:
            return rows[0], asked
        centred = [part.weight * self._centred(row, part.words is not None)
                   for part, row in zip(parts, rows, strict=True)]  # fmt: skip
        vector = np.sum(centred, 0) if centred else np.zeros(self.made.dim, np.float32)
        for chosen, weight in ((like, LIKE), (unlike, -UNLIKE)):
            if chosen:
                examples = np.stack([self._centred(row, False) for row in self._examples(chosen)])
                vector = vector + weight * examples.mean(0)
        length = float(np.linalg.norm(vector))
        if length < 1e-6:
            raise Misuse("The terms of the query cancel each other out: leave one out, or change a weight.")
        return (vector / length).astype(np.float32), asked

    def row(self, number: int) -> dict[str, Any]:
        """What is known of one picture. Raises `MiradaError` for an id that is none."""
        return _plain(self._row(number, SHOWN))

    def thumbnail(self, number: int) -> bytes:
        """WebP, 256 pixels along the longer side."""
        data: bytes = self._row(number, ("thumbnail",))["thumbnail"]
        return data

    def file(self, number: int) -> str:
        """The path by which the picture's file can be opened, whatever bytes are in it."""
        row = self._row(number, ("path", "raw"))
        path: str = row["path"] if row["raw"] is None else os.fsdecode(row["raw"])
        return path

    def neighbours(self, number: int, k: int = 10) -> list[Hit]:
        """The pictures nearest to one of the index, without itself."""
        self.vectors.refresh()
        vectors = self.vectors.of([number])
        if not len(vectors):
            raise NoSuchPicture(number)
        found = self.vectors.nearest(vectors[0], k + 1)
        match = self._match(vectors[0], found, [])
        paths = self._paths(found.ids.tolist())
        hits = zip(found.ids.tolist(), found.scores.tolist(), match.tolist(), strict=True)
        return [Hit(other, paths[other], score, share) for other, score, share in hits if other != number][:k]

    def rows(self, *, sort: str = "path", descending: bool = False, where: str | None = None, offset: int = 0,
             limit: int = 100) -> tuple[int, list[dict[str, Any]]]:  # fmt: skip
        """A page of all rows, sorted by a column, and how many there are in all. Rows without a value come last."""
        order = self.order(sort=sort, descending=descending, where=where)
        page = order[offset : offset + limit].tolist()
        known = self._some(page, SHOWN)
        return len(order), [_plain(known[number]) for number in page if number in known]

    def order(self, *, sort: str = "path", descending: bool = False, where: str | None = None) -> NDArray[np.int64]:
        """The ids of all rows, or of those that a condition holds for, sorted by a column."""
        if sort not in SORTS:
            raise Misuse(f"Cannot sort by {sort!r}: choose {', '.join(SORTS)}.")
        with storage(self.where):
            self.table.checkout_latest()
            keys = rows_of(self.table, ["id", sort], None if where is None else condition(where))
        order = keys.sort_by([(sort, "descending" if descending else "ascending"), ("id", "ascending")])
        ids: NDArray[np.int64] = order["id"].to_numpy()
        return ids

    # --- order in the house ------------------------------------------------------------------------------------------

    def duplicates(self) -> list[list[dict[str, Any]]]:
        """Groups of near-duplicates, the largest group first; in each, the largest picture first."""
        self.vectors.refresh()
        columns = ["id", "path", "phash", "width", "height", "size", "vector"]
        with storage(self.where):
            found = rows_of(self.table, columns)
        groups = duplicate_groups(found["phash"].to_numpy(), as_stored(found))
        rows = found.drop(["vector", "phash"])
        return [
            sorted(rows.take(group).to_pylist(), key=lambda row: (-row["width"] * row["height"], -row["size"]))
            for group in groups
        ]

    def clusters(self, count: int | None = None) -> list[tuple[str, list[int]]]:
        """Names and ids of heaps of like pictures, the largest first, the most typical picture of each first. Of a
        large index, those of a sample. Without words a heap is called after its most typical picture's folder."""
        self.vectors.refresh()
        known = self.background.known
        words = everyday_words() if len(known) else []
        found = heaps(self.vectors.matrix, words, known if words else None, count)
        ids = self.vectors.ids
        folders = self._paths([int(ids[heap.places[0]]) for heap in found])
        return [(heap.name or os.path.basename(os.path.dirname(folders[int(ids[heap.places[0]])])),
                 ids[heap.places].tolist()) for heap in found]  # fmt: skip

    def map(self) -> list[tuple[int, float, float]]:
        """(id, x, y) from -1 to 1: like pictures lie near each other. Of a large index, a sample. It is kept until the
        index changes."""
        self.vectors.refresh()
        key = f"{self.vectors.version} "
        stored = (self.facts.get("map") or b"").decode()
        if stored.startswith(key):
            return [tuple(row) for row in json.loads(stored.removeprefix(key))]
        plane = places(self.vectors.matrix).round(4).tolist()
        made = [(number, x, y) for number, (x, y) in zip(self.vectors.ids.tolist(), plane, strict=True)]
        self.facts.put("map", (key + json.dumps(made)).encode())
        return made

    def outliers(self, k: int = 10) -> list[Hit]:
        """The pictures that are least like their ten nearest neighbours, the loneliest first; their `score` is the mean
        cosine with these. In a large index, neighbours are looked for in a sample, of which the pictures are."""
        self.vectors.refresh()
        matrix, lonely = self.vectors.matrix, []
        most = min(NEIGHBOURS, len(matrix) - 1)
        if most < 1:
            return []
        for start in range(0, len(matrix), 1024):
            similarity = matrix[start : start + 1024] @ matrix.T
            similarity[np.arange(len(similarity)), np.arange(start, start + len(similarity))] = -np.inf
            lonely.append(-np.partition(-similarity, most - 1, 1)[:, :most].mean(1))
        scores = np.concatenate(lonely)
        order = np.argsort(scores, kind="stable")[:k]
        paths = self._paths(self.vectors.ids[order].tolist())
        return [Hit(number, paths[number], round(score, 4), 1.0) for number, score in
                zip(self.vectors.ids[order].tolist(), scores[order].tolist(), strict=True)]  # fmt: skip

    # --- making -------------------------------------------------------------------------------------------------------

    @classmethod
    def update(
        cls, data: str | os.PathLike[str], where: str | os.PathLike[str], *, model: str | Model | None = None,
        device: str = "cpu", batch: int = 32, on_progress: Progress | None = None, apart: bool = True,
    ) -> tuple["Index", Changes]:  # fmt: skip
        """Bring the index `where` up to date with DATA, or make it.

        Only what is new or changed is embedded, each content once. `apart` builds the vector index of a large table in
        a process of its own.

        Raises:
            MiradaError: no pictures, a model that cannot be had or is another one than before, a full disk; what was
                indexed before is kept.
        """
        place = location(where)
        made = None
        if not exists(place):
            scan(data)  # nothing is made where there is nothing
            require_room(place)
            made = open_model(model or DEFAULT, device=device, on_progress=on_progress)
            model = made.model
        with writing(place):
            found = scan(data)  # not earlier: what another process has taken in meanwhile would count as gone
            if made is not None and not exists(place):
                create_table(place, made.made)
            index = cls(place, model=model, device=device)
            if made is not None:
                index.require(made)
            elif model is not None and not (isinstance(model, str) and reference(model) == index.made.model):
                index.require(open_model(model, device=device, on_progress=on_progress))
            return index, index._bring_up_to_date(found, batch, on_progress, apart)

    def require(self, embedder: Embedder) -> None:
        """Use this model. Raises `MiradaError` if the index was made with another one."""
        if embedder.made.fingerprint != self.made.fingerprint:
            name = self.made.model
            raise MiradaError(
                f"The index {self.where!r} was made with {name!r}, and "
                + ("that has been trained or changed since" if embedder.made.model == name else
                   f"{embedder.made.model!r} is another model")
                + ": use the one it was made with, or make a new index with `mirada index PHOTOS --index NEW`."
            )  # fmt: skip
        self._embedder = embedder

    def _bring_up_to_date(self, found: Any, batch: int, on_progress: Progress | None, apart: bool) -> Changes:
        changes = bring_up_to_date(
            self.table, self.where, self.made, found, lambda pixels: self.embedder.images(pixels), batch=batch,
            on_progress=on_progress,
        )  # fmt: skip
        if changes.added or changes.updated or changes.removed or self.facts.get("background") is None:
            self.vectors.refresh()
            self.facts.put("background", self._measure().to_bytes())
        if apart and needs_index(self.table, self.vectors.exact_up_to):
            build_index_apart(self.where)
        return changes

    # --- parts --------------------------------------------------------------------------------------------------------

    def _encode(self, parts: Sequence[Part]) -> list[NDArray[np.float32]]:
        words = [part.words for part in parts if part.words is not None]
        pictures = [part.picture for part in parts if part.picture is not None]
        texts = iter(self.embedder.texts(words) if words else ())
        images = iter(self._encode_images(pictures) if pictures else ())
        return [part.vector if part.vector is not None else next(texts if part.words is not None else images)
                for part in parts]  # fmt: skip

    def _encode_images(self, images: Sequence[str | Image.Image]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self.embedder.model.encode_image(list(images), normalize=True).cpu().numpy()
        return vectors

    def _examples(self, chosen: Sequence[str | int]) -> NDArray[np.float32]:
        numbers = [one for one in chosen if isinstance(one, int)]
        rows = self.vectors.of(numbers) if numbers else np.empty((0, self.made.dim), np.float32)
        if len(rows) < len(set(numbers)):
            raise MiradaError(f"The index has no row {numbers}: it may have been removed; search again.")
        paths = [one for one in chosen if not isinstance(one, int)]
        return np.concatenate([rows, self._encode_images(paths)]) if paths else rows

    def _centred(self, vector: NDArray[np.float32], text: bool) -> NDArray[np.float32]:
        """What sets it apart from other texts, or other pictures: these live in different corners of the space (Liang
        et al. 2022, arXiv:2203.02053), so that a sum of both would be all picture."""
        background = self.background
        apart = vector - (background.text_mean if text else background.image_mean)
        unit: NDArray[np.float32] = apart / max(float(np.linalg.norm(apart)), 1e-12)
        return unit

    @property
    def background(self) -> Background:
        """What the index is like where nothing matches; measured anew when it has grown."""
        self.vectors.refresh()
        rows = self.vectors.rows
        known = self._background
        if known is None or abs(known.rows - rows) > GROWN * rows:
            stored = self.facts.get("background")
            known = None if stored is None else Background.from_bytes(stored)
            if known is None or abs(known.rows - rows) > GROWN * rows:
                known = self._measure()
            self._background = known
        return known

    def _measure(self) -> Background:
        made_up = known = np.empty((0, self.made.dim), np.float32)
        fallen = best = (np.empty(0, np.float32), np.empty(0, np.float32))
        if self.made.words and self.vectors.rows:
            texts = invented(), everyday_words()
            made_up, known = (self.embedder.texts(some) for some in texts)
            fallen = pieces(self.embedder.model, texts[0]), pieces(self.embedder.model, texts[1])
            best = self._best(made_up), self._best(known)
        return measure(made_up, known, fallen, best, self.vectors.matrix, self.vectors.rows)

    def _best(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The largest score of each."""
        return np.array([self.vectors.nearest(vector, 1).scores[0] for vector in vectors], np.float32)

    def _match(
        self, vector: NDArray[np.float32], found: Nearest, asked: Sequence[tuple[str, NDArray[np.float32]]]
    ) -> NDArray[np.float32]:
        """How sure it is, from 0 to 1, that each picture is a hit; from 0.5 on it is one."""
        if not len(found.ids):
            return np.empty(0, np.float32)
        outstanding = standing_out(found.scores, self.vectors.background(vector))
        if not asked:
            return _outlier(outstanding, self.vectors.rows, found.scores)
        background = self.background
        texts = np.stack([row for _, row in asked])
        fallen = pieces(self.embedder.model, [words for words, _ in asked])
        top = np.full(len(asked), outstanding[0], np.float32)
        sure = float(background.meaning(texts, fallen, top).max())
        about = background.about(found.scores, outstanding, self.vectors.of(found.ids.tolist()))
        return np.where(about, sure, min(sure, 0.49)).astype(np.float32)

    def _paths(self, ids: Sequence[int]) -> dict[int, str]:
        if self.vectors.whole:
            return {number: self.vectors.paths[place] for number in ids
                    if (place := self.vectors.place(number)) is not None}  # fmt: skip
        return {number: row["path"] for number, row in self._some(ids, ("id", "path")).items()}

    def _row(self, number: int, columns: Sequence[str]) -> dict[str, Any]:
        found = self._some([int(number)], ("id", *(name for name in columns if name != "id")))
        if not found:
            raise NoSuchPicture(number)
        return found[int(number)]

    def _some(self, ids: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        if not ids:
            return {}
        with storage(self.where):
            rows = rows_of(self.table, columns, f"id IN ({', '.join(map(str, ids))})").to_pylist()
        return {row["id"]: row for row in rows}


def _outlier(outstanding: NDArray[np.float32], rows: int, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """How sure it is that pictures are more like the one asked with than its strangers are: few of so many normal
    numbers would lie so far out. What is as good as the same picture is a hit in any case."""
    sure = 1 / (1 + np.exp(np.clip(rare(rows) - outstanding, -50, 50)))
    return np.where(scores >= SAME, 1.0, sure).astype(np.float32)


def _seen_from(folder: str, chosen: Sequence[str | int]) -> list[str | int]:
    return [one if isinstance(one, int) else os.path.join(folder, os.path.expanduser(one)) for one in chosen]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: times in ISO's form."""
    return {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in row.items()}
