"""What the server counts, in the text format that Prometheus reads (version 0.0.4)."""

import threading
import time
from bisect import bisect_left
from collections import defaultdict

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Counted", "Metrics"]

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
HELP = {
    "mirada_requests_total": ("counter", "Requests that were answered."),
    "mirada_request_seconds": ("histogram", "Time from a request to the end of its answer."),
    "mirada_requests_in_progress": ("gauge", "Requests that are being answered."),
    "mirada_pictures": ("gauge", "Pictures in the index."),
}


class Metrics:
    """Counters by route. Names come from the routes, never from what was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, list[float]] = defaultdict(lambda: [0.0] * (len(BOUNDS) + 2))  # buckets, sum
        self._open = 0

    def begin(self) -> None:
        with self._lock:
            self._open += 1

    def end(self, route: str, method: str, status: int, seconds: float) -> None:
        with self._lock:
            self._open -= 1
            self._requests[route, method, status] += 1
            row = self._seconds[route]
            row[bisect_left(BOUNDS, seconds)] += 1
            row[-1] += seconds

    def text(self, pictures: int) -> str:
        """All of it, one sample a line."""
        with self._lock:
            requests = sorted(self._requests.items())
            seconds = sorted((route, list(row)) for route, row in self._seconds.items())
            in_progress = self._open
        samples: dict[str, list[str]] = {name: [] for name in HELP}
        for (route, method, status), count in requests:
            labels = f'route="{route}",method="{method}",status="{status}"'
            samples["mirada_requests_total"].append(f"mirada_requests_total{{{labels}}} {count}")
        for route, row in seconds:
            total = 0
            for bound, count_below in zip((*map(str, BOUNDS), "+Inf"), row[:-1], strict=True):
                total += int(count_below)
                samples["mirada_request_seconds"].append(
                    f'mirada_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}'
                )
            samples["mirada_request_seconds"] += [
                f'mirada_request_seconds_sum{{route="{route}"}} {row[-1]:.6f}',
                f'mirada_request_seconds_count{{route="{route}"}} {total}',
            ]
        samples["mirada_requests_in_progress"].append(f"mirada_requests_in_progress {in_progress}")
        samples["mirada_pictures"].append(f"mirada_pictures {pictures}")
        lines: list[str] = []
        for name, (kind, words) in HELP.items():
            lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}", *samples[name]]
        return "\n".join(lines) + "\n"


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
        self.metrics.begin()
        try:
            await self.app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in self.METHODS else "other"
            self.metrics.end(route, method, status, time.monotonic() - began)
