"""Batches made ready in the background of the step, and how long the step had to wait for them."""

from __future__ import annotations

import collections
import concurrent.futures
import time
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import jax

from openpi.training import batching

T = TypeVar("T")
# Batches on the devices beside the one in use: enough to even out a loader that is now fast, now slow.
_READY = 2


class Feeder(Generic[T]):
    """The batches of `source`, made by a thread of its own that keeps some of them ready on the devices.

    An error of `source` is raised in place of its batch.
    """

    def __init__(self, source: Iterator[T], ready: int = _READY) -> None:
        self._source = source
        self._maker = concurrent.futures.ThreadPoolExecutor(1, "batches")
        self._watcher = concurrent.futures.ThreadPoolExecutor(1, "steps")
        self._coming = collections.deque(self._maker.submit(next, source) for _ in range(ready))

    def next(self) -> T:
        """The next batch."""
        batch = self._coming.popleft().result()
        self._coming.append(self._maker.submit(next, self._source))
        return batch

    def next_after(self, step: Any) -> tuple[T, float]:
        """The next batch, and for how many seconds the devices waited for it.

        Args:
            step: an array that the step running meanwhile makes; the devices wait from when it is there.
        """
        done = self._watcher.submit(_time_when_ready, step)
        batch = self.next()
        arrived = time.monotonic()
        return batch, max(0.0, arrived - done.result()) if step.is_ready() else 0.0

    def close(self) -> None:
        """Stop; the batches that are ready are lost."""
        self._maker.shutdown(cancel_futures=True)
        self._watcher.shutdown()
        with batching.closing(self._source):
            pass


def _time_when_ready(array: jax.Array) -> float:
    array.block_until_ready()
    return time.monotonic()
