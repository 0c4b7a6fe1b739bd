"""What Prometheus can read from a server at `/metrics`."""

import weakref
from typing import Protocol

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Line(Protocol):
    """Where requests wait."""

    @property
    def waiting(self) -> int: ...


class ServerMetrics:
    """One server's metrics, in a registry of their own, so that a process can hold several servers."""

    def __init__(self) -> None:
        self.registry = into = prometheus_client.CollectorRegistry()
        self.requests = Counter("openpi_requests", "Requests by outcome.", ["outcome"], registry=into)
        self.connections = Gauge("openpi_connections", "Clients connected now.", registry=into)
        self.waiting = Gauge("openpi_waiting_requests", "Requests that wait for inference now.", registry=into)
        self._lines: weakref.WeakSet[Line] = weakref.WeakSet()
        self.waiting.set_function(lambda: sum(line.waiting for line in self._lines))
        self.ready = Gauge("openpi_ready", "1 once the policy is loaded and warm.", registry=into)
        self.queue_seconds = Histogram("openpi_queue_seconds", "Wait before inference.", buckets=SECONDS, registry=into)
        self.infer_seconds = Histogram("openpi_infer_seconds", "Time of one batch.", buckets=SECONDS, registry=into)
        self.batch_size = Histogram("openpi_batch_size", "Requests in one batch.", buckets=SIZES, registry=into)
        self.received_bytes = Counter("openpi_received_bytes", "Bytes of observations.", registry=into)
        self.sent_bytes = Counter("openpi_sent_bytes", "Bytes of results.", registry=into)

    def watch(self, line: Line) -> None:
        """Count what waits in this line too, as long as there is one."""
        self._lines.add(line)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)
