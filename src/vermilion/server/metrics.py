"""Figures for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

Reading = tuple[str, str, str, dict[str, float]]
"""name, help, label ("" = none), value by label"""


class Metrics:
    """Counters and histograms; what the server knows anyway is read when somebody asks."""

    def __init__(self) -> None:
        """Make a registry of our own: several servers may live in one process."""
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vermilion_requests", "Requests answered, by route and status", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "vermilion_request_seconds",
            "Time from a request to the end of its answer",
            ["route"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
            registry=self.registry,
        )
        self.audio = Counter("vermilion_audio_seconds", "Audio transcribed for waiting clients", registry=self.registry)
        self.speed = Histogram(
            "vermilion_real_time_factor",
            "Time that a client waited for the engines, per second of its audio",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )

    def read(self, readings: Callable[[], Iterable[Reading]]) -> None:
        """Ask for gauges whenever somebody asks us."""
        self.registry.register(_Gauges(readings))

    @contextmanager
    def timed(self, seconds: float) -> Iterator[None]:
        """Measure the transcription of a recording."""
        began = time.monotonic()
        yield
        self.audio.inc(seconds)
        if seconds > 0:
            self.speed.observe((time.monotonic() - began) / seconds)

    def text(self) -> tuple[bytes, str]:
        """Everything in the text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class _Gauges:
    def __init__(self, readings: Callable[[], Iterable[Reading]]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        for name, text, label, values in self._readings():
            family = GaugeMetricFamily(name, text, labels=[label] if label else [])
            for key, value in values.items():
                family.add_metric([key] if label else [], value)
            yield family

    def describe(self) -> list[Collector]:
        return []


class Measured:
    """ASGI middleware: counts and times every request under the route's own path."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        """Take what is behind it."""
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.monotonic()
        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(time.monotonic() - began)
