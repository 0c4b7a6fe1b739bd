"""How evenly a thread ticks, over its last ticks."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

WINDOW = 1000


class TickStatistics:
    """Lateness of the last ticks."""

    def __init__(self) -> None:
        self._late_ns: collections.deque[int] = collections.deque(maxlen=WINDOW)
        self.ticks = 0

    def add(self, late_ns: int) -> None:
        """Takes one tick's lateness."""
        self.ticks += 1
        self._late_ns.append(late_ns)

    def figures(self) -> dict[str, Any]:
        """For diagnostics."""
        late_ms = np.array(list(self._late_ns) or [0]) / 1e6
        median, high = np.quantile(late_ms, [0.5, 0.99])
        return {"ticks": self.ticks, "tick_jitter_p50_ms": float(median), "tick_jitter_p99_ms": float(high)}
