"""What Prometheus can ask: requests, stages, queues, jobs and the index."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from retrieval.datatypes import Timings

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS"})
_STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._places: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "retrieval_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "retrieval_request_seconds",
            "Time from the headers of a request to the end of its answer.",
            ("route",),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("retrieval_requests_in_flight", "Requests under way.", registry=self.registry)
        self.queue_seconds = Histogram(
            "retrieval_queue_seconds",
            "Time in the queue before a worker was free.",
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self.work_seconds = Histogram(
            "retrieval_work_seconds", "Time on a worker.", buckets=_REQUEST_BUCKETS, registry=self.registry
        )
        self._stages = Histogram(
            "retrieval_stage_seconds",
            "Time of one stage of a search.",
            ("stage",),
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._encode = self._stages.labels("encode")
        self._retrieve = self._stages.labels("retrieve")
        self._rerank = self._stages.labels("rerank")
        self.ingested = Counter(
            "retrieval_ingested_documents", "Documents of finished ingests.", ("outcome",), registry=self.registry
        )
        self.reloads = Counter("retrieval_reloads", "Times another pipeline took over.", registry=self.registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        place = (method if method in _METHODS else "other", route, status)
        found = self._places.get(place)
        if found is None:
            # As many as there are labels, which clients cannot make.
            found = self._places[place] = (
                self.requests.labels(place[0], route, str(status)),
                self.request_seconds.labels(route),
            )
        found[0].inc()
        found[1].observe(seconds)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge whose value is asked for when the metrics are read."""
        Gauge(name, description, registry=self.registry).set_function(value)

    def stages(self, timings: Timings) -> None:
        """Count the stages of one search."""
        self._encode.observe(timings.encode / 1000)
        self._retrieve.observe(timings.retrieve / 1000)
        self._rerank.observe(timings.rerank / 1000)

    def worked(self, waited_s: float, worked_s: float) -> None:
        """Count one call of a worker."""
        self.queue_seconds.observe(waited_s)
        self.work_seconds.observe(worked_s)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
