"""Which chunks an executor takes: the right names, size and period, finite, in order, not past."""

from __future__ import annotations

import collections

import numpy as np

from openpi_runtime.chunk import ActionChunk
from openpi_runtime.robots import RobotSpec

PERIOD_TOLERANCE = 0.01


class ChunkGate:
    """Refuses chunks that must not be executed, and counts why. The reasons' first words are their kinds."""

    def __init__(self, spec: RobotSpec, future_ns: int) -> None:
        """future_ns: how far ahead of the clock a chunk's stamp may be."""
        self._spec = spec
        self._future_ns = future_ns
        self._newest: tuple[int, int] | None = None
        self.refused: collections.Counter[str] = collections.Counter()

    def admit(self, chunk: ActionChunk, now_ns: int) -> str:
        """Empty where the chunk may be executed, else a sentence that says why not."""
        for kind, check in (("size", self._size), ("names", self._names), ("value", self._finite)):
            if problem := check(chunk):
                return self._refuse(kind, problem)
        for kind, timing in (("period", self._period), ("time", self._time), ("order", self._order)):
            if problem := timing(chunk, now_ns):
                return self._refuse(kind, problem)
        self._newest = (chunk.stamp_ns, chunk.chunk_id)
        return ""

    def forget_order(self) -> None:
        """Takes the next chunk whatever its stamp, as after a jump of the clock."""
        self._newest = None

    def refuse(self, kind: str) -> None:
        """Counts a chunk that was refused elsewhere."""
        self.refused[kind] += 1

    def _refuse(self, kind: str, problem: str) -> str:
        self.refuse(kind)
        return problem

    def _size(self, chunk: ActionChunk) -> str:
        dim = len(self._spec.action)
        if chunk.actions.ndim == 2 and chunk.actions.shape[0] > 0 and chunk.actions.shape[1] == dim:
            return ""
        shape = " x ".join(map(str, chunk.actions.shape))
        return f"wrong size: {shape} instead of a horizon x {dim}"

    def _names(self, chunk: ActionChunk) -> str:
        if chunk.action_names == self._spec.action_names:
            return ""
        return f"wrong names: {', '.join(chunk.action_names)} instead of {', '.join(self._spec.action_names)}"

    def _finite(self, chunk: ActionChunk) -> str:
        bad = ~np.isfinite(chunk.actions)
        if not bad.any():
            return ""
        row, column = np.argwhere(bad)[0]
        return f"not finite: {self._spec.action_names[column]} at step {row} is {chunk.actions[row, column]}"

    def _period(self, chunk: ActionChunk, _now_ns: int) -> str:
        if abs(chunk.period_ns - self._spec.period_ns) <= PERIOD_TOLERANCE * self._spec.period_ns:
            return ""
        return f"wrong period: {chunk.period_ns / 1e6:g} ms instead of {self._spec.period_ns / 1e6:g} ms"

    def _time(self, chunk: ActionChunk, now_ns: int) -> str:
        if chunk.end_ns < now_ns:
            return f"stale: its last step was due {(now_ns - chunk.end_ns) / 1e9:.3f} s ago"
        if chunk.stamp_ns > now_ns + self._future_ns:
            return f"from the future: stamped {(chunk.stamp_ns - now_ns) / 1e9:.3f} s ahead of the clock"
        return ""

    def _order(self, chunk: ActionChunk, _now_ns: int) -> str:
        # By stamp, not by id: a policy node that restarts counts from one again.
        if self._newest is None or chunk.stamp_ns > self._newest[0]:
            return ""
        return f"out of order: stamped {(self._newest[0] - chunk.stamp_ns) / 1e9:.3f} s before chunk {self._newest[1]}"
