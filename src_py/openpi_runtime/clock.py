"""Watches the node's clock against the machine's: does it stand still, did it jump?"""

from __future__ import annotations

import enum


class ClockState(enum.Enum):
    """What the clock did since the last look."""

    ADVANCED = "advanced"
    STANDING = "standing"  # no new time, or slightly back: nothing is due
    STOPPED = "stopped"  # standing for longer than allowed
    JUMPED = "jumped"


class ClockWatch:
    """Compares successive looks at the node's clock (it may be simulated) with the monotonic clock."""

    def __init__(self, stop_ns: int, jump_ns: int) -> None:
        """stop_ns: wall time without progress that counts as a stop; jump_ns: the largest step that is no jump."""
        self._stop_ns = stop_ns
        self._jump_ns = jump_ns
        self._now_ns: int | None = None
        self._advanced_at_ns = 0
        self.jump_s = 0.0

    def look(self, now_ns: int, monotonic_ns: int) -> ClockState:
        """Classifies the time since the last look. Call it at least every few tenths of a second of wall time."""
        step = 0 if self._now_ns is None else now_ns - self._now_ns
        if abs(step) > self._jump_ns:
            self.jump_s = step / 1e9
            self._advance(now_ns, monotonic_ns)
            return ClockState.JUMPED
        if step > 0 or self._now_ns is None:
            self._advance(now_ns, monotonic_ns)
            return ClockState.ADVANCED
        stopped = monotonic_ns - self._advanced_at_ns >= self._stop_ns
        return ClockState.STOPPED if stopped else ClockState.STANDING

    def _advance(self, now_ns: int, monotonic_ns: int) -> None:
        self._now_ns = now_ns
        self._advanced_at_ns = monotonic_ns
