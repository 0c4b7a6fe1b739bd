"""How evenly a thread ticks and how fast it works, over its last ticks."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import numpy.ma  # which np.quantile would else import at its first call, 50 ms in the middle of a motion

WINDOW = 1000


class TickStatistics:
    """Lateness of the last ticks, and what the last chunks waited for besides their tick."""

    def __init__(self) -> None:
        self._late_ns: collections.deque[int] = collections.deque(maxlen=WINDOW)
        self._to_command_ns: collections.deque[int] = collections.deque(maxlen=WINDOW)
        self._accepted: dict[int, tuple[int, int]] = {}
        self.ticks = 0

    def accepted(self, chunk_id: int, arrived_ns: int, ready_ns: int) -> None:
        """Notes when a chunk came to this process, and when it was taken in: monotonic."""
        self._accepted = {chunk_id: (arrived_ns, ready_ns)}

    def ticked(self, late_ns: int, chunk_id: int, began_ns: int, published_ns: int) -> None:
        """Takes one tick: its lateness, the chunk it commanded from, when it began and had commanded: monotonic."""
        self.ticks += 1
        self._late_ns.append(late_ns)
        if (times := self._accepted.pop(chunk_id, None)) is not None:
            arrived_ns, ready_ns = times
            wait_ns = max(0, began_ns - late_ns - ready_ns)
            self._to_command_ns.append(published_ns - arrived_ns - wait_ns)

    def figures(self) -> dict[str, Any]:
        """For diagnostics. chunk_to_command leaves out how long a chunk, once ready, waited until its tick was due."""
        figures: dict[str, Any] = {"ticks": self.ticks}
        for name, values in (("tick_jitter", self._late_ns), ("chunk_to_command", self._to_command_ns)):
            ms = np.array(list(values) or [0]) / 1e6
            median, high = np.quantile(ms, [0.5, 0.99])
            figures |= {f"{name}_p50_ms": float(median), f"{name}_p99_ms": float(high)}
        return figures
