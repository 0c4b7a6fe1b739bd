"""A thread that ticks on absolute deadlines of a ROS clock, simulated or not, and keeps looking when it stands."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from rclpy.clock import JumpThreshold, ROSClock
from rclpy.duration import Duration

from openpi_ros import realtime

_PRIORITY = 20  # of the real-time scheduler, above all other threads of a node
# Wall time after which there is a look although the clock has not reached its deadline: it may stand.
_LOOK_S = 0.05
# A simulated clock whose period is rounded differently by a nanosecond still meets its deadlines.
_EARLY = 0.02


class OnTick(Protocol):
    """What a ticker calls."""

    def __call__(self, now_ns: int, monotonic_ns: int, late_ns: int, due: bool) -> None:
        """late_ns: how late the tick is. due: False where the clock stands and there is only to look at it."""


class Ticker:
    """Calls on_tick once a period, on a fixed grid of the clock. Missed deadlines are skipped, not made up for."""

    def __init__(self, clock: ROSClock, period_ns: int, on_tick: OnTick) -> None:
        self._clock = clock
        self._period_ns = period_ns
        self._on_tick = on_tick
        self._changed = threading.Condition()
        self._stopping = False
        self._poked = False
        self._phase_ns = 0
        self._moved_ns = time.monotonic_ns()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        threshold = JumpThreshold(
            min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1), on_clock_change=True
        )
        self._jumps = clock.create_jump_callback(threshold, post_callback=lambda _: self._on_clock())

    def start(self) -> None:
        """Begins to tick."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; no tick is made any more when this returns."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        self._jumps.unregister()

    def poke(self) -> None:
        """Ticks at once, and from then on in a new phase; on a simulated clock nothing, its ticks are its own."""
        with self._changed:
            if not self._clock.ros_time_is_active:
                self._poked = True
                self._changed.notify_all()

    def _on_clock(self) -> None:
        with self._changed:
            self._moved_ns = time.monotonic_ns()
            self._changed.notify_all()

    def _run(self) -> None:
        realtime.prefer(_PRIORITY)
        deadline = self._after(self._now())
        while True:
            with self._changed:
                look_at = time.monotonic() + _LOOK_S
                while not self._stopping and not self._poked and (wait := self._wait_s(deadline, look_at)) > 0:
                    self._changed.wait(wait)
                if self._stopping:
                    return
                poked, self._poked = self._poked, False
            now = self._now()
            if poked:
                self._phase_ns, deadline = now % self._period_ns, now
            due = self._is_due(now, deadline)
            self._on_tick(now, time.monotonic_ns(), self._late_ns(now, deadline) if due else 0, due)
            deadline = self._after(now) if due or not self._is_ahead(now, deadline) else deadline

    def _now(self) -> int:
        return int(self._clock.now().nanoseconds)

    def _wait_s(self, deadline: int, look_at: float) -> float:
        """Seconds to wait at most, 0 or less where it is time to tick or to look."""
        now, look = self._now(), look_at - time.monotonic()
        if self._is_due(now, deadline):
            return 0.0
        return look if self._clock.ros_time_is_active else min((deadline - now) / 1e9, look)

    def _is_due(self, now: int, deadline: int) -> bool:
        early = _EARLY * self._period_ns if self._clock.ros_time_is_active else 0
        return now >= deadline - early

    def _is_ahead(self, now: int, deadline: int) -> bool:
        """Whether the deadline is still the next one: false after the clock jumped back."""
        return deadline - now <= 2 * self._period_ns

    def _after(self, now: int) -> int:
        """The first deadline after now, at least half a period away."""
        elapsed = now - self._phase_ns + self._period_ns // 2
        return (elapsed // self._period_ns + 1) * self._period_ns + self._phase_ns

    def _late_ns(self, now: int, deadline: int) -> int:
        """How late a tick is: by the clock, or by the machine's since the simulated clock moved there."""
        if self._clock.ros_time_is_active:
            return time.monotonic_ns() - self._moved_ns if now >= deadline else 0
        return max(0, now - deadline)
