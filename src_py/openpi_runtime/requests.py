"""When a policy is asked for the next chunk, and what it is told for real-time chunking."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float64

from openpi_runtime.chunk import ActionChunk
from openpi_runtime.latency import DelayTracker, LatencyTracker
from openpi_runtime.modes import Mode
from openpi_runtime.strategies import Blend

# Reports of HOLD after an answer that may still be from before the executor got it.
REPORTS_IN_FLIGHT = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """What the executor last reported: see openpi_msgs/ExecutorState."""

    mode: Mode
    chunk_id: int
    next_step: int
    steps_left: int


class RequestPlanner:
    """Decides on the policy's side, from the executor's reports and measured latency. Knows no threads."""

    def __init__(
        self,
        strategy: str,
        period_ns: int,
        interval_steps: int = 25,
        guidance_weight: float = 5.0,
        delay: int | None = None,
        execution_horizon: int = 0,
        blend: Blend | None = None,
    ) -> None:
        """interval_steps: steps between two observations that chunks are asked for (1: as fast as possible).

        delay: steps to tell the policy for real-time chunking; None: as measured. blend: the executor's.
        execution_horizon: fewest steps to tell it as executed between two requests, so that guidance ends as many
        before the chunk's end.
        """
        self._strategy = strategy
        self._period_ns = period_ns
        self._interval_steps = interval_steps
        self._guidance_weight = guidance_weight
        self._fixed_delay = delay
        self._execution_horizon = execution_horizon
        self._blend = blend or Blend()
        self.latency = LatencyTracker()
        self.delays = DelayTracker(self.latency, period_ns)
        self._progress: Progress | None = None
        self._newest: ActionChunk | None = None  # as the executor plays it: absolute, and blended with the one before
        self._base: Float64[np.ndarray, " d"] | float = 0.0
        self._asked_ns: int | None = None
        self._in_flight = False
        self._reports = REPORTS_IN_FLIGHT

    def on_progress(self, progress: Progress) -> None:
        """Takes the executor's report; the step at which a chunk was entered is its measured delay."""
        before = self._progress
        # A first report says nothing: it may come in the middle of a chunk.
        entered = before is not None and progress.chunk_id and before.chunk_id != progress.chunk_id
        if entered and progress.mode is Mode.RUNNING:
            self.delays.measured(max(0, progress.next_step - 1))
        self._progress = progress
        self._reports += 1

    def due(self, observation_ns: int) -> bool:
        """Whether to ask for a chunk from an observation of that time."""
        if self._in_flight or (self._asked_ns is not None and observation_ns == self._asked_ns):
            return False
        progress = self._progress
        if progress is None:
            return True
        if progress.mode is Mode.HOLD:
            return self._reports >= REPORTS_IN_FLIGHT
        if self._newest is None:
            return progress.mode is Mode.RUNNING
        if progress.mode is not Mode.RUNNING:
            return False
        if self._strategy == "open_loop":
            return progress.chunk_id == self._newest.chunk_id and progress.steps_left == 0
        waited = observation_ns - (self._asked_ns or 0)
        return not 0 <= waited < (self._interval(self._newest) - 0.5) * self._period_ns

    def _interval(self, newest: ActionChunk) -> int:
        """Steps between two requests: as wanted, down to half where a short chunk would end before the next comes."""
        in_time = newest.horizon - self.delays.expect() - 1
        return min(self._interval_steps, max(self._interval_steps // 2, in_time))

    def ask(self, observation_ns: int, base: Float64[np.ndarray, " d"] | float = 0.0) -> dict[str, Any]:
        """Notes a request and returns what the observation must carry for real-time chunking (else nothing).

        base: what the policy's relative columns are relative to, see `relative.base_state`.
        """
        self._in_flight = True
        self._asked_ns = observation_ns
        self._base = base
        if self._strategy != "rtc" or self._newest is None or not self._moving():
            return {}
        return self._rtc_fields(self._newest, observation_ns)

    def answered(self, chunk: ActionChunk, now_ns: int, seconds: float) -> None:
        """Notes the chunk that answered, as published now, and how long it took."""
        self._in_flight = False
        absolute = dataclasses.replace(chunk, actions=chunk.actions + self._base)
        blended = self._strategy == "rtc" and self._moving()
        self._newest = self._blend.join(self._newest, absolute, now_ns) if blended else absolute
        self._reports = 0
        self.latency.add(seconds)

    def failed(self) -> None:
        """Notes that the request brought no chunk."""
        self._in_flight = False

    def reset(self) -> None:
        """Forgets chunks and requests, as at a new episode or after a jump of the clock; latency stays."""
        self._newest = self._asked_ns = self._progress = None
        self._in_flight = False

    def _moving(self) -> bool:
        return self._progress is not None and self._progress.mode is Mode.RUNNING

    def _rtc_fields(self, previous: ActionChunk, observation_ns: int) -> dict[str, Any]:
        shift = round(previous.position(observation_ns))
        valid = previous.horizon - shift
        if shift < 0 or valid <= 0:
            return {}
        expected = self.delays.expect() if self._fixed_delay is None else self._fixed_delay
        delay = min(max(expected, 1), valid)  # 0 would read like a policy that knows no real-time chunking
        return {
            "rtc/prev_actions": shifted(previous.actions, shift) - self._base,
            "rtc/prev_valid": valid,
            "rtc/delay": delay,
            "rtc/execution_horizon": min(max(shift, delay, self._execution_horizon, 1), previous.horizon - delay),
            "rtc/guidance_weight": self._guidance_weight,
        }


def shifted(actions: Float64[np.ndarray, "h d"], shift: int) -> Float64[np.ndarray, "h d"]:
    """The actions from row `shift` on, the last row repeated to the full horizon."""
    rows = np.minimum(np.arange(len(actions)) + shift, len(actions) - 1)
    return actions[rows]
