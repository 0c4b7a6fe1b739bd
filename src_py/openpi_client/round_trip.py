"""How long answers take, as the client sees it."""

import collections
import dataclasses

import numpy as np

WINDOW = 1000  # answers that the percentiles look back on


@dataclasses.dataclass
class RoundTripStats:
    """Counters since the client was made, and times of the last answers, in milliseconds."""

    requests: int = 0
    failures: int = 0
    connections: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    server_ms: float = 0.0  # the last answer's time in the policy, as the server reports it
    times_ms: collections.deque[float] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=WINDOW))

    @property
    def reconnects(self) -> int:
        """How often the connection had to be made anew."""
        return max(0, self.connections - 1)

    def percentile_ms(self, percent: float) -> float:
        """Round-trip time that `percent` of the last answers stayed below; nan before the first one."""
        return float(np.percentile(list(self.times_ms), percent)) if self.times_ms else float("nan")

    def summary(self) -> dict[str, float]:
        """Plain numbers, for diagnostics and logs."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "reconnects": self.reconnects,
            "p50_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "server_ms": self.server_ms,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
        }
