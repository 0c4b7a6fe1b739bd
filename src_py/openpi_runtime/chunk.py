"""Action chunks, and which of their steps is due, was executed, and is left."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float64

# A tick this share of a period early or late still executes the next step in line; beyond it the step is
# looked up by time again. Without this, ticks that jitter around half a period would skip and repeat steps.
IN_LINE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """Future actions predicted from one observation, in robot units.

    Step k is due at stamp_ns + k * period_ns.

    Attributes:
        chunk_id: number the policy node gave it.
        stamp_ns: time of the observation it was computed from, on the node's clock.
        period_ns: time between two steps.
        actions: [horizon, dim].
        action_names: name of each column.
        frozen_steps: leading steps taken over from the previous chunk (real-time chunking).
    """

    chunk_id: int
    stamp_ns: int
    period_ns: int
    actions: Float64[np.ndarray, "h d"]
    action_names: tuple[str, ...]
    frozen_steps: int = 0
    prompt: str = ""
    inference_ms: float = 0.0
    pipeline_ms: float = 0.0

    @property
    def horizon(self) -> int:
        """Number of steps."""
        return len(self.actions)

    @property
    def end_ns(self) -> int:
        """When the last step is due."""
        return self.due_ns(self.horizon - 1)

    def due_ns(self, step: int) -> int:
        """When a step is due."""
        return self.stamp_ns + step * self.period_ns

    def position(self, now_ns: int) -> float:
        """Where `now_ns` lies in the chunk, in steps."""
        return (now_ns - self.stamp_ns) / self.period_ns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One step to execute. `index` is its place in the chunk `chunk_id`; `left` counts the steps after it."""

    action: Float64[np.ndarray, " d"]
    chunk_id: int
    index: int
    left: int


class ChunkCursor:
    """Walks through one chunk by time, in line where it can: each step once, none skipped."""

    def __init__(self, chunk: ActionChunk, not_before_ns: int | None = None) -> None:
        """not_before_ns: due time of the step executed last; the entry lies after it, never back in time."""
        self.chunk = chunk
        self.entered: int | None = None
        self.last: int | None = None
        self._not_before_ns = not_before_ns

    def advance(self, now_ns: int) -> int | None:
        """The step to execute now, None where none is due. Counts it as executed."""
        step = self._next(now_ns)
        if step is None or not 0 <= step < self.chunk.horizon:
            return None
        self.entered = step if self.entered is None else self.entered
        self.last = step
        return step

    def left(self) -> int:
        """Steps after the one executed last."""
        return self.chunk.horizon - 1 - (-1 if self.last is None else self.last)

    @property
    def last_due_ns(self) -> int | None:
        """Due time of the step executed last."""
        return None if self.last is None else self.chunk.due_ns(self.last)

    def _next(self, now_ns: int) -> int | None:
        position = self.chunk.position(now_ns)
        if self.last is not None:
            # A tick that comes early repeats its step; it is not due again, but nothing else is.
            return self.last + 1 if abs(position - self.last - 1) < IN_LINE else max(self.last, round(position))
        step = round(position)
        if self._not_before_ns is not None and self.chunk.due_ns(step) <= self._not_before_ns:
            step += 1
        return step


class ChunkBuffer:
    """The newest chunks, in the order of their observations, and what was executed of each.

    Holds at most `capacity` chunks; those whose last step is past are forgotten by `forget_past`.
    """

    def __init__(self, capacity: int = 16) -> None:
        self._capacity = capacity
        self._cursors: list[ChunkCursor] = []

    @property
    def cursors(self) -> tuple[ChunkCursor, ...]:
        """One cursor per chunk, the oldest first."""
        return tuple(self._cursors)

    @property
    def newest(self) -> ChunkCursor | None:
        """The cursor of the newest chunk."""
        return self._cursors[-1] if self._cursors else None

    def add(self, chunk: ActionChunk) -> None:
        """Adds a chunk newer than all held; its entry is after the step executed last."""
        newest = self.newest
        due = max((c.last_due_ns for c in self._cursors if c.last_due_ns is not None), default=None)
        if newest is not None and chunk.stamp_ns < newest.chunk.stamp_ns:
            raise ValueError(f"Chunk {chunk.chunk_id} is older than chunk {newest.chunk.chunk_id}; add them in order.")
        self._cursors = [*self._cursors, ChunkCursor(chunk, due)][-self._capacity :]

    def forget_past(self, now_ns: int) -> None:
        """Drops every chunk whose last step was due more than a period ago."""
        self._cursors = [c for c in self._cursors if c.chunk.end_ns + c.chunk.period_ns > now_ns]

    def keep_newest(self, count: int) -> None:
        """Drops all but the newest `count` chunks."""
        self._cursors = self._cursors[-count:] if count else []

    def clear(self) -> None:
        """Drops everything."""
        self._cursors.clear()
