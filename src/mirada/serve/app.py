"""The application: an index as a page and an API.

What comes next to the page, such as labels and training runs, is one more file of routes here and one more view in
pages/views.js.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Scope

from mirada import __version__
from mirada.errors import MiradaError
from mirada.search.filters import COLUMNS
from mirada.search.index import SORTS, NoSuchPicture
from mirada.serve.answers import About, Failure, Health
from mirada.serve.guard import LARGEST, Guard, TooLarge
from mirada.serve.metrics import Counted, Metrics
from mirada.serve.pictures import pictures
from mirada.serve.places import PAGES
from mirada.serve.queries import queries
from mirada.serve.rows import IndexGone
from mirada.serve.shelf import NoSuchUpload, Shelf

__all__ = ["create_app"]

THREADS = 256  # so that those who wait for the model leave some to thumbnails
ABOUT = "Search over the pictures of one index. Everything that the page does, a script can do as well."


def create_app(shelf: Shelf, token: str | None = None) -> ASGIApp:
    """The application for one index; with a token only for those who have it."""
    app = FastAPI(
        title="Mirada", version=__version__, description=ABOUT, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json", responses={"4XX": {"model": Failure}}, lifespan=_with_threads,
    )  # fmt: skip
    metrics = Metrics()
    app.include_router(queries(shelf))
    app.include_router(pictures(shelf))

    @app.get("/api/index", tags=["index"])
    def about() -> About:
        """What is served."""
        version, made = shelf.rows.version(), shelf.rows.made
        return About(
            name=os.path.basename(shelf.where.rstrip("/")), pictures=len(shelf.rows), version=version, model=made.model,
            words=made.words, sorts=list(SORTS), columns=COLUMNS, mirada=__version__,
        )  # fmt: skip

    @app.get("/healthz", tags=["operation"])
    def health(answer: Response) -> Health:
        """Whether the index can be read; 503 if not. Needs no token."""
        try:
            shelf.rows.version()
        except MiradaError:  # whose text names folders of this machine
            answer.status_code = 503
            return Health(status="the index cannot be read")
        return Health(status="ok")

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    def measured() -> PlainTextResponse:
        """Counters and times, for Prometheus."""
        return PlainTextResponse(metrics.text(len(shelf.rows)), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api", include_in_schema=False)
    def documentation() -> FileResponse:
        return FileResponse(PAGES / "api.html", headers={"cache-control": "no-cache"})

    _say_what_went_wrong(app)
    app.mount("/", Pages(directory=PAGES, html=True))
    return Guard(Counted(app, metrics), token)


@asynccontextmanager
async def _with_threads(_: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    yield


class Pages(StaticFiles):
    """Files of the page, which a browser asks for again after an upgrade."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["cache-control"] = "no-cache"
        return answer


def _say_what_went_wrong(app: FastAPI) -> None:
    """Every failure is one sentence under "error"."""

    @app.exception_handler(MiradaError)
    def of_mirada(_: Request, error: MiradaError) -> JSONResponse:
        missing, gone = isinstance(error, (NoSuchPicture, NoSuchUpload)), isinstance(error, IndexGone)
        return JSONResponse({"error": str(error)}, 404 if missing else 503 if gone else 400)

    @app.exception_handler(TooLarge)
    def too_large(_: Request, __: TooLarge) -> JSONResponse:
        return JSONResponse({"error": f"That is too large: {LARGEST >> 20} MB are the most."}, 413)

    @app.exception_handler(RequestValidationError)
    def of_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}."}, 422)

    @app.exception_handler(HTTPException)
    def of_http(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)
