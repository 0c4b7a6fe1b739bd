"""When a task that a user asked for is over, and how it ended."""

from __future__ import annotations

import dataclasses

from openpi_runtime.modes import Mode

TIME_LIMIT = "time_limit"
SUCCESS = "success"
CANCELLED = "cancelled"
# A larger step of the clock between two looks is a jump, and no time that the task took.
_JUMP_NS = 1_000_000_000
# Ends that are no fault.
GOOD_ENDS = (TIME_LIMIT, SUCCESS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskRules:
    """Nanoseconds of the node's clock.

    Attributes:
        time_limit_ns: the task ends after so long; 0: it has no limit.
        hold_timeout_ns: a task fails when the executor holds, or reports nothing, for so long.
    """

    time_limit_ns: int = 0
    hold_timeout_ns: int = 5_000_000_000


class TaskWatch:
    """Follows one task from the executor's reports. Knows no threads and no clock of its own."""

    def __init__(self, rules: TaskRules, start_ns: int) -> None:
        self._rules = rules
        self._start_ns = start_ns
        self._moved_ns = start_ns
        self._now_ns = start_ns
        self._reason = "the executor reported nothing"
        self.steps = 0

    def on_state(self, now_ns: int, mode: Mode, reason: str) -> str:
        """Takes one report of the executor; returns how the task ended, empty while it goes on."""
        self._leave_out_jumps(now_ns)
        if mode is Mode.RUNNING:
            self.steps += 1
            self._moved_ns = now_ns
        else:
            self._reason = f"{mode.name}: {reason}" if reason else mode.name
        if mode is Mode.ESTOP:
            return self._reason
        return self.look(now_ns)

    def look(self, now_ns: int) -> str:
        """How the task ended by this time, empty while it goes on. To be called several times a second."""
        self._leave_out_jumps(now_ns)
        if self._rules.time_limit_ns and now_ns - self._start_ns >= self._rules.time_limit_ns:
            return TIME_LIMIT
        if now_ns - self._moved_ns > self._rules.hold_timeout_ns:
            return self._reason
        return ""

    def _leave_out_jumps(self, now_ns: int) -> None:
        step_ns, self._now_ns = now_ns - self._now_ns, now_ns
        if not 0 <= step_ns <= _JUMP_NS:
            self._start_ns += step_ns
            self._moved_ns += step_ns
