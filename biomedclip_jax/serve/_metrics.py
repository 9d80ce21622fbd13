"""What the server counts, for Prometheus."""

from collections.abc import Callable, Hashable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server. Their names begin with `biomedclip_`; `process_resident_memory_bytes` is the process's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own = {"namespace": "biomedclip", "registry": self._registry}
        self._answers = Counter("requests", "Answers by address and status", ("path", "status"), **own)
        self._seconds = Histogram("request_seconds", "From the head to the whole answer", ("path",), buckets=_SECONDS, **own)
        self.inside = Gauge("requests_inside", "Requests that are not answered yet", **own)
        self.body_bytes = Gauge("body_bytes", "Bytes of the requests that are inside", **own)
        self._batch_rows = Histogram("batch_rows", "Images or texts that ran together", ("program",), buckets=_ROWS, **own)
        self._batch_seconds = Counter("batch_seconds", "Time that the device worked", ("program",), **own)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count one more answer of the server. path: one of few, as each has a series of its own."""
        self._answers.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def ran(self, program: Hashable, rows: int, seconds: float) -> None:
        """Count a batch that the device ran, its rows and seconds."""
        self._batch_rows.labels(str(program)).observe(rows)
        self._batch_seconds.labels(str(program)).inc(seconds)

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when somebody looks."""
        Gauge(name, description, namespace="biomedclip", registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
