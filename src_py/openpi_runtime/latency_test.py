import math

import numpy as np
import pytest

from openpi_runtime.latency import DelayTracker, LatencyTracker


def tracker(*samples: float) -> LatencyTracker:
    made = LatencyTracker(warm_up=0)
    for sample in samples:
        made.add(sample)
    return made


def test_warm_up_leaves_the_window() -> None:
    latency = LatencyTracker(warm_up=2)
    assert [latency.add(s) for s in (9.0, 5.0, 0.1)] == [False, False, True]
    assert latency.quantile(1.0) == 0.1
    assert latency.requests == 3


def test_unknown_is_nan_and_no_steps() -> None:
    assert math.isnan(LatencyTracker().quantile(0.5))
    assert LatencyTracker().steps(20_000_000) == 0


def test_outliers_leave_the_window_until_they_are_the_rule() -> None:
    latency = tracker(*[0.1] * 6)
    assert not latency.add(2.0)
    assert latency.quantile(1.0) == 0.1
    assert [latency.add(2.0) for _ in range(4)] == [False, False, True, True]
    assert latency.quantile(0.5) == 2.0


def test_window_slides() -> None:
    latency = LatencyTracker(window=3, warm_up=0)
    for sample in (1.0, 0.2, 0.2, 0.2):
        latency.add(sample)
    assert latency.quantile(1.0) == 0.2


def test_steps_are_rounded_up() -> None:
    assert tracker(0.041, 0.041).steps(20_000_000) == 3


def test_delay_is_measured_and_only_at_first_estimated() -> None:
    delays = DelayTracker(tracker(0.1, 0.1), 20_000_000)
    assert delays.expect() == pytest.approx(5)
    delays.measured(3)
    assert delays.expect() == 3
    for steps in (9, *[2] * 9):
        delays.measured(steps)
    assert delays.expect() == 9
    delays.measured(2)
    assert delays.expect() == 2


def test_quantiles_are_interpolated() -> None:
    latency = LatencyTracker(warm_up=0)
    seconds = [0.3, 0.1, 0.25, 0.11, 0.2, 0.19]
    for value in seconds:
        latency.add(value)
    for q in (0.0, 0.37, 0.5, 0.9, 1.0):
        assert latency.quantile(q) == pytest.approx(np.quantile(seconds, q))
