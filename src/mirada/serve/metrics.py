"""What the server counts, for Prometheus."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Counted", "Metrics"]


class Metrics:
    """Counters by route. Names come from the routes, never from what was asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("mirada_requests", "Requests that were answered.", ["route", "method", "status"],
                                registry=self._registry)  # fmt: skip
        self.seconds = Histogram("mirada_request_seconds", "Time from a request to the end of its answer.", ["route"],
                                 registry=self._registry)  # fmt: skip
        self.open = Gauge("mirada_requests_in_progress", "Requests that are being answered.", registry=self._registry)
        self._pictures = Gauge("mirada_pictures", "Pictures in the index.", registry=self._registry)

    def text(self, pictures: int) -> bytes:
        self._pictures.set(pictures)
        return generate_latest(self._registry)


class Counted:
    """The application, counted."""

    METHODS = ("GET", "HEAD", "POST")

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.monotonic()
        with self.metrics.open.track_inprogress():
            try:
                await self.app(scope, receive, sending)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in self.METHODS else "other"
                self.metrics.requests.labels(route, method, status).inc()
                self.metrics.seconds.labels(route).observe(time.monotonic() - began)
