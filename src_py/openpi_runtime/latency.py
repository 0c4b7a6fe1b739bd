"""How long a chunk takes: seconds per request, and delay in steps as the executor consumed them."""

from __future__ import annotations

import collections
import math

import numpy as np

WARM_UP = 2  # first requests compile and connect; they say nothing about the next one
OUTLIER = 5.0  # times the median
OUTLIERS_IN_A_ROW = 3  # more than this many and it is the new normal
DELAYS_KEPT = 10  # as in Black et al. 2025: the delay is the largest of the last ten


class LatencyTracker:
    """Quantiles of request latency over a sliding window, without warm-up and outliers."""

    def __init__(self, window: int = 100, warm_up: int = WARM_UP) -> None:
        self._samples: collections.deque[float] = collections.deque(maxlen=window)
        self._outliers: list[float] = []
        self._warm_up = warm_up
        self.requests = 0

    def add(self, seconds: float) -> bool:
        """Takes one request's latency; False where it was left out of the window."""
        self.requests += 1
        if self.requests <= self._warm_up:
            return False
        if len(self._samples) >= 5 and seconds > OUTLIER * self.quantile(0.5):
            return self._add_outlier(seconds)
        self._outliers.clear()
        self._samples.append(seconds)
        return True

    def quantile(self, q: float) -> float:
        """The q-quantile in seconds, NaN while the window is empty."""
        if not self._samples:
            return math.nan
        # np.quantile would import numpy.ma at its first call, 50 ms in the middle of a motion.
        return float(np.interp(q * (len(self._samples) - 1), np.arange(len(self._samples)), np.sort(self._samples)))

    def steps(self, period_ns: int, q: float = 0.9) -> int:
        """The q-quantile in whole steps, rounded up; 0 while nothing is known."""
        seconds = self.quantile(q)
        return 0 if math.isnan(seconds) else math.ceil(seconds * 1e9 / period_ns)

    def _add_outlier(self, seconds: float) -> bool:
        self._outliers.append(seconds)
        if len(self._outliers) <= OUTLIERS_IN_A_ROW:
            return False
        self._samples.clear()
        self._samples.extend(self._outliers)
        self._outliers.clear()
        return True


class DelayTracker:
    """Delay of a chunk in consumed steps, measured where it is executed; an estimate only beforehand."""

    def __init__(self, latency: LatencyTracker, period_ns: int) -> None:
        self._latency = latency
        self._period_ns = period_ns
        self._measured: collections.deque[int] = collections.deque(maxlen=DELAYS_KEPT)

    def measured(self, steps: int) -> None:
        """Takes the step index at which a chunk was entered: the steps consumed since its observation."""
        self._measured.append(steps)

    def expect(self) -> int:
        """Steps the next chunk will be late: the largest of the last ten measured, else the estimate."""
        return max(self._measured) if self._measured else self._latency.steps(self._period_ns)
