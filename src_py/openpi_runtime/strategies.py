"""How chunks that overlap become one stream of steps. All but `open_loop` go by time.

A strategy takes chunks as they come and gives the step to execute now. It knows no clock of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float64

from openpi_runtime.chunk import ActionChunk, ChunkBuffer, ChunkCursor, Step
from openpi_runtime.safety import bounded

INTERRUPTION = 5  # periods without a step after which open_loop gives its chunk up
# Weights between the frozen steps and the end, of c, which falls from 1 to 0.
SCHEDULES: dict[str, Callable[[Float64[np.ndarray, " h"]], Float64[np.ndarray, " h"]]] = {
    "cosine": lambda c: (1.0 - np.cos(np.pi * c)) / 2.0,
    "exponential": lambda c: c * np.expm1(c) / np.expm1(1.0),
    "linear": lambda c: c,
    "ones": np.ones_like,
    "zeros": np.zeros_like,
}


class Strategy(Protocol):
    """What the executor needs of a strategy."""

    def add(self, chunk: ActionChunk, now_ns: int) -> None:
        """Takes a chunk newer than all before."""

    def step(self, now_ns: int) -> Step | None:
        """The step to execute now, counted as executed; None where none is due."""

    def clear(self) -> None:
        """Drops every chunk."""


class OpenLoop:
    """From step 0, `steps` steps, then the newest chunk: the published broker's way, for comparison.

    Takes no notice of latency: a chunk starts at its first step however late it comes.
    """

    def __init__(self, steps: int = 25) -> None:
        self._steps = steps
        self._waiting: ActionChunk | None = None
        self._current: ActionChunk | None = None
        self._next = 0
        self._stepped_ns = 0

    def add(self, chunk: ActionChunk, now_ns: int) -> None:
        """The newest chunk waits until the current one is done."""
        self._waiting = chunk

    def step(self, now_ns: int) -> Step | None:
        """The next step in line. What an interruption made old is dropped: a stale motion is not taken up again."""
        self._drop_stale(now_ns)
        self._stepped_ns = now_ns
        if self._current is None or self._next >= self._last(self._current):
            self._current, self._waiting, self._next = self._waiting, None, 0
        if self._current is None:
            return None
        index, self._next = self._next, self._next + 1
        left = self._last(self._current) - self._next
        return Step(action=self._current.actions[index], chunk_id=self._current.chunk_id, index=index, left=left)

    def clear(self) -> None:
        """Drops every chunk."""
        self._waiting = self._current = None

    def _drop_stale(self, now_ns: int) -> None:
        if self._waiting is not None and self._waiting.end_ns < now_ns:
            self._waiting = None
        if self._current is not None and now_ns - self._stepped_ns > INTERRUPTION * self._current.period_ns:
            self._current = None

    def _last(self, chunk: ActionChunk) -> int:
        return min(self._steps, chunk.horizon)


class Latest:
    """The newest chunk, entered at the step due by time."""

    def __init__(self) -> None:
        self._buffer = ChunkBuffer()

    def add(self, chunk: ActionChunk, now_ns: int) -> None:
        """Replaces the current chunk, unless nothing of the new one is due yet or any more."""
        self._buffer.add(chunk)
        self._buffer.keep_newest(2)

    def step(self, now_ns: int) -> Step | None:
        """The step of the newest chunk that is due now; of the one before while the newest has not begun."""
        for cursor in reversed(self._buffer.cursors):
            index = cursor.advance(now_ns)
            if index is not None:
                return _step(cursor, index)
            if now_ns > cursor.chunk.stamp_ns:  # it has ended: what was planned before it is not taken up again
                return None
        return None

    def clear(self) -> None:
        """Drops every chunk."""
        self._buffer.clear()


class TemporalEnsemble:
    """Mean of every chunk's step for now, weighted exp(-m i), i = 0 the oldest (Zhao et al. 2023, ACT)."""

    def __init__(self, m: float = 0.01, capacity: int = 50) -> None:
        self._m = m
        self._buffer = ChunkBuffer(capacity)

    def add(self, chunk: ActionChunk, now_ns: int) -> None:
        """Joins the ensemble."""
        self._buffer.forget_past(now_ns)
        self._buffer.add(chunk)

    def step(self, now_ns: int) -> Step | None:
        """The weighted mean; chunk, index and what is left are the newest chunk's."""
        due = [(cursor, index) for cursor in self._buffer.cursors if (index := cursor.advance(now_ns)) is not None]
        if not due:
            return None
        weights = np.exp(-self._m * np.arange(len(due)))
        predictions = np.stack([cursor.chunk.actions[index] for cursor, index in due])
        return dataclasses.replace(_step(*due[-1]), action=np.average(predictions, axis=0, weights=weights))

    def clear(self) -> None:
        """Drops every chunk."""
        self._buffer.clear()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blend:
    """How a plan passes from one chunk to the next: smoothly, wherever the next is entered.

    Attributes:
        schedule: weights of the plan so far, see `prefix_weights`.
        seconds: from the entry until the new chunk counts alone.
    """

    schedule: str = "cosine"
    seconds: float = 0.5

    def join(self, plan: ActionChunk | None, chunk: ActionChunk, now_ns: int) -> ActionChunk:
        """The chunk as it is executed from now on: `plan` up to the step due now, then less and less of it."""
        if plan is None or plan.end_ns <= now_ns:
            return chunk
        entry = max(0, round(chunk.position(now_ns)))
        return blend(plan, chunk, entry, round(self.seconds * 1e9 / chunk.period_ns), self.schedule)


class RealTimeChunking:
    """`latest`, for chunks inpainted on the steps of the previous one (Black et al. 2025).

    Guidance leaves a gap where the frozen steps end, a chunk that was not inpainted a wide one: the blend covers both.
    """

    def __init__(self, schedule: str = "cosine", blend_s: float = 0.5) -> None:
        prefix_weights(2, 0, 1, schedule)  # an unknown schedule shows now, not at the first chunk
        self._blend = Blend(schedule=schedule, seconds=blend_s)
        self._inner = Latest()
        self._plan: ActionChunk | None = None

    def add(self, chunk: ActionChunk, now_ns: int) -> None:
        """Enters the chunk by time."""
        self._plan = self._blend.join(self._plan, chunk, now_ns)
        self._inner.add(self._plan, now_ns)

    def step(self, now_ns: int) -> Step | None:
        """The step due now."""
        return self._inner.step(now_ns)

    def clear(self) -> None:
        """Drops every chunk."""
        self._plan = None
        self._inner.clear()


STRATEGIES: dict[str, type[Strategy]] = {
    "open_loop": OpenLoop,
    "latest": Latest,
    "temporal_ensemble": TemporalEnsemble,
    "rtc": RealTimeChunking,
}


def make_strategy(name: str, **params: Any) -> Strategy:
    """Makes a strategy by its name.

    Raises:
        ValueError: the name is unknown, or a parameter is not one of the strategy's.
    """
    if name not in STRATEGIES:
        raise ValueError(f"There is no strategy {name!r}; allowed: {', '.join(STRATEGIES)}.")
    try:
        return STRATEGIES[name](**params)
    except TypeError as error:
        raise ValueError(f"Strategy {name!r} does not take these parameters: {error}.") from error


def prefix_weights(horizon: int, delay: int, end: int, schedule: str = "cosine") -> Float64[np.ndarray, " h"]:
    """How much each step of a new chunk is held to the previous chunk: 1 before `delay`, 0 from `end` on.

    Between them, with c = (end - i) / (end - delay + 1): cosine (1 - cos(pi c)) / 2, exponential
    c (e^c - 1) / (e - 1) (Black et al. 2025, equation 5, with end = H - s), linear c, ones 1, zeros 0.

    Raises:
        ValueError: the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"There is no mask schedule {schedule!r}; allowed: {', '.join(SCHEDULES)}.")
    steps = np.arange(horizon)
    end = max(end, delay)
    c = bounded((end - steps) / (end - delay + 1), 0.0, 1.0)
    return np.where(steps < delay, 1.0, np.where(steps < end, SCHEDULES[schedule](c), 0.0))


def blend(previous: ActionChunk, new: ActionChunk, entry: int, steps: int, schedule: str = "cosine") -> ActionChunk:
    """`new`, drawn to `previous`: wholly before step `entry`, then less and less over `steps` steps.

    Where `previous` has ended, the gap of its last step is kept on, so that a short overlap is no steeper; before it
    begins, its first step counts. No value leaves the range that both chunks span in its column.
    """
    shift, last = round(previous.position(new.stamp_ns)), previous.horizon - 1
    rows = np.minimum(np.arange(new.horizon), max(0, last - shift))
    gap = previous.actions[np.clip(rows + shift, 0, last)] - new.actions[rows]
    weights = prefix_weights(new.horizon, entry, entry + steps, schedule)
    lower = np.minimum(previous.actions.min(axis=0), new.actions.min(axis=0))
    upper = np.maximum(previous.actions.max(axis=0), new.actions.max(axis=0))
    mixed = bounded(new.actions + weights[:, None] * gap, lower, upper)
    return dataclasses.replace(new, actions=mixed)


def _step(cursor: ChunkCursor, index: int) -> Step:
    return Step(action=cursor.chunk.actions[index], chunk_id=cursor.chunk.chunk_id, index=index, left=cursor.left())
