"""Routes for searching: by words, by pictures of the index, by pictures that are sent."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from mirada.search.query import Part
from mirada.serve.answers import Found, Sent, Term, picture_of
from mirada.serve.guard import body_of
from mirada.serve.pictures import KEPT, LONGEST, MOST, Chosen, Where
from mirada.serve.shelf import Shelf

__all__ = ["queries"]

BODY = {"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}


def queries(shelf: Shelf) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["search"])

    @routes.get("/search")
    def search(
        q: Annotated[str, Query(max_length=LONGEST, description='Words, or a sum: horse + 0.5*"sea" - fruit')] = "",
        plus: Chosen = [], minus: Chosen = [], where: Where = None,  # noqa: B006
        k: Annotated[int, Query(ge=1, le=MOST)] = 60,
        every: Annotated[bool, Query(alias="all", description="The nearest ones, whether they match or not.")] = False,
    ) -> Found:  # fmt: skip
        """The pictures that match, best first."""
        terms = shelf.terms(q, plus, minus)
        with shelf.lock:
            found = shelf.index.search(terms, k=k, where=where, everything=every)
        known = shelf.rows.take([hit.id for hit in found])
        rows = [picture_of(known[hit.id], hit.score, hit.match) for hit in found if hit.id in known]
        return Found(version=shelf.rows.version(), terms=_words(terms), pictures=rows)

    @routes.post("/uploads", openapi_extra=BODY)
    async def upload(request: Request) -> Sent:
        """Send a picture, as the body of the request, to search with it. The last 64 are kept, in memory only."""
        data = await body_of(request)
        sent = await run_in_threadpool(shelf.send, data)
        return Sent(upload=sent.key, width=sent.width, height=sent.height)

    @routes.get("/uploads/{key}/thumbnail", response_class=Response)
    def thumbnail(key: str) -> Response:
        """WebP, 256 pixels along the longer side."""
        return Response(shelf.sent(key).thumbnail, media_type="image/webp", headers=KEPT)

    return routes


def _words(terms: list[Part]) -> list[Term]:
    return [Term(words=part.words, weight=part.weight) for part in terms if part.words is not None]
