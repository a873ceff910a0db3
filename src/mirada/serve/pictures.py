"""Routes under /api/pictures: rows, thumbnails, the pictures themselves, and what is like them."""

from io import BytesIO
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from mirada.serve.answers import Attention, Group, Groups, Heat, Page, Picture, picture_of
from mirada.serve.explain import attention, heat
from mirada.serve.shelf import Shelf

__all__ = ["Where", "pictures"]

MOST = 1000  # rows of a page
SIDES = 2048  # pixels of the longer side, of what is shown
LONGEST = 10_000  # characters of a query or condition

Number = Annotated[int, Path(ge=0, lt=1 << 53, description="A picture's id.")]
Where = Annotated[str | None, Query(max_length=LONGEST, description="date > 2024 and path like '%trip%'")]
Chosen = Annotated[list[str], Query(max_length=64, description="Ids of pictures, or keys of uploads.")]
KEPT = {"cache-control": "private, max-age=86400"}
Version = Annotated[str, Query(alias="v", max_length=64, description="The index's: with it, an answer may be kept.")]


def pictures(shelf: Shelf) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["pictures"])

    @routes.get("/pictures")
    def page(
        sort: str = "date", descending: bool = True, where: Where = None,
        offset: Annotated[int, Query(ge=0, lt=1 << 53)] = 0, limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
    ) -> Page:  # fmt: skip
        """A part of all pictures, or of those that a condition holds for, in order."""
        order = shelf.rows.order(sort, descending, where)
        ids = order[offset : offset + limit].tolist()
        known = shelf.rows.take(ids)
        rows = [picture_of(known[number]) for number in ids if number in known]
        return Page(total=len(order), version=shelf.rows.version(), pictures=rows)

    @routes.get("/pictures/{number}")
    def one(number: Number) -> Picture:
        """What is known of a picture."""
        return picture_of(shelf.rows.row(number))

    @routes.get("/pictures/{number}/thumbnail", response_class=Response)
    def thumbnail(number: Number, version: Version = "") -> Response:
        """WebP, 256 pixels along the longer side."""
        return _webp(shelf.rows.row(number, ("thumbnail",))["thumbnail"], version)

    @routes.get("/pictures/{number}/view", response_class=Response)
    def view(
        number: Number, side: Annotated[int, Query(ge=16, le=SIDES)] = 1600, version: Version = ""
    ) -> Response:  # fmt: skip
        """The picture for a screen, upright, as WebP, whatever its own format is; without what is hidden in a file."""
        image = shelf.rows.picture(number, side)
        image.thumbnail((side, side))
        buffer = BytesIO()
        image.save(buffer, "WEBP", quality=88, method=1)
        return _webp(buffer.getvalue(), version)

    @routes.get("/pictures/{number}/file", response_class=Response)
    def file(number: Number) -> Response:
        """The file itself, to be saved."""
        data, own = shelf.rows.original(number)
        name = picture_of(shelf.rows.row(number)).name if own else f"{number}.webp"
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Response(data, media_type="application/octet-stream", headers=headers)

    @routes.get("/pictures/{number}/neighbours")
    def neighbours(number: Number, k: Annotated[int, Query(ge=1, le=MOST)] = 12) -> Group:
        """The pictures nearest to this one."""
        with shelf.lock:
            found = shelf.index.neighbours(number, k)
        known = shelf.rows.take([hit.id for hit in found])
        rows = [picture_of(known[hit.id], round(hit.score, 4)) for hit in found if hit.id in known]
        return Group(pictures=rows)

    @routes.get("/pictures/{number}/duplicates")
    def duplicates_of(number: Number) -> Group:
        """Other files of the same picture: scaled, compressed again, brightened, copied."""
        shelf.rows.row(number)
        for group in shelf.duplicates():
            ids = [row["id"] for row in group]
            if number in ids:
                return _group(shelf, [other for other in ids if other != number])
        return Group(pictures=[])

    @routes.get("/pictures/{number}/heat")
    def heat_of(
        number: Number, q: Annotated[str, Query(max_length=LONGEST)] = "", plus: Chosen = [],  # noqa: B006
        minus: Chosen = [],  # noqa: B006
    ) -> Heat:  # fmt: skip
        """Why it was found: how near each patch is to the query."""
        terms = shelf.terms(q, plus, minus)
        with shelf.lock:
            model = shelf.index.embedder.model
        image = shelf.rows.picture(number, model.preprocess.reads_at_least())
        with shelf.lock:
            vector, _ = shelf.index.vector(terms)
            return Heat(**heat(model, image, vector))

    @routes.get("/pictures/{number}/attention")
    def attention_of(number: Number, layer: Annotated[int, Query(ge=-1000, le=1000)] = -1) -> Attention:
        """Where each patch of it looks, in one layer; -1 is the last."""
        with shelf.lock:
            model = shelf.index.embedder.model
        image = shelf.rows.picture(number, model.preprocess.reads_at_least())
        with shelf.lock:
            return Attention(**attention(model, image, layer))

    @routes.get("/outliers")
    def outliers(offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=MOST)] = 100) -> Page:
        """The pictures least like any other, the loneliest first; `score` is the mean cosine with the ten nearest."""
        found = shelf.outliers()
        some = found[offset : offset + limit]
        known = shelf.rows.take([hit.id for hit in some])
        rows = [picture_of(known[hit.id], hit.score) for hit in some if hit.id in known]
        return Page(total=len(found), version=shelf.rows.version(), pictures=rows)

    @routes.get("/duplicates")
    def duplicates(
        offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=MOST)] = 100
    ) -> Groups:
        """Groups of near-duplicates, the largest group first, in each the largest picture first."""
        found = shelf.duplicates()
        groups = [_group(shelf, [row["id"] for row in group]) for group in found[offset : offset + limit]]
        return Groups(total=len(found), version=shelf.rows.version(), groups=groups)

    return routes


def _webp(data: bytes, version: str) -> Response:
    return Response(data, media_type="image/webp", headers=KEPT if version else {"cache-control": "no-cache"})


def _group(shelf: Shelf, ids: list[int]) -> Group:
    known = shelf.rows.take(ids)
    return Group(pictures=[picture_of(known[number]) for number in ids if number in known])
