"""Simulated time against wall time."""

import collections


class Pacer:
    """Keeps a simulation from running faster than allowed, and measures how fast it runs.

    Times are in seconds: simulated time as the caller counts it, wall time from a monotonic clock. A simulation that
    fell behind does not hurry to catch up: the missed wall time is gone.
    """

    def __init__(self, max_factor: float, window: float = 1.0) -> None:
        """max_factor: most simulated seconds per wall second, 0 for no limit. window: wall seconds measured over."""
        self._max_factor = max_factor
        self._window = window
        self._deadline = 0.0
        self._history: collections.deque[tuple[float, float]] = collections.deque()

    def delay(self, period: float, wall: float) -> float:
        """How long to wait, at wall time `wall`, before the step that simulates the next `period`."""
        if self._max_factor == 0:
            return 0.0
        self._deadline = max(self._deadline + period / self._max_factor, wall)
        return self._deadline - wall

    def record(self, simulated: float, wall: float) -> None:
        """Note how far simulated time has come."""
        self._history.append((simulated, wall))
        while len(self._history) > 2 and wall - self._history[1][1] >= self._window:
            self._history.popleft()

    @property
    def factor(self) -> float:
        """Simulated per wall time over the last window; 0 until there are two records."""
        if len(self._history) < 2:
            return 0.0
        (first, start), (last, end) = self._history[0], self._history[-1]
        return (last - first) / (end - start) if end > start else 0.0
