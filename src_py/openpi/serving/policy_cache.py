"""Loaded policies, up to a bound; the least recently used one makes room."""

import asyncio
import collections
import contextlib
import dataclasses
import gc
import logging
from collections.abc import AsyncIterator, Callable

from openpi.serving import batching
from openpi.serving.batching import BatchOptions, InferencePolicy
from openpi.serving.metrics import ServerMetrics

logger = logging.getLogger(__name__)

Load = Callable[[str], InferencePolicy]


@dataclasses.dataclass(eq=False)
class Entry:
    """One checkpoint: its thread, how many requests use it now, and the task that loads it."""

    inference: batching.InferenceThread
    users: int = 0
    loading: "asyncio.Task[None] | None" = None


class PolicyCache:
    """`use(id)` gives a thread with the loaded policy of a checkpoint, loading it when it is not there.

    A policy that computes never leaves: a new one waits until another is idle. One that failed to load is tried
    again the next time it is asked for.
    """

    def __init__(self, load: Load, bound: int, batch: BatchOptions, metrics: ServerMetrics) -> None:
        if bound < 1:
            raise ValueError(f"The number of checkpoints in memory is {bound}; it must be 1 or more.")
        self._load, self._bound, self._batch, self._metrics = load, bound, batch, metrics
        self._entries: collections.OrderedDict[str, Entry] = collections.OrderedDict()
        self._idle = asyncio.Condition()
        self._sessions: collections.Counter[str] = collections.Counter()

    @property
    def loaded(self) -> list[str]:
        """Ids in memory, or being loaded, the least recently used first."""
        return list(self._entries)

    @contextlib.contextmanager
    def session(self, checkpoint_id: str) -> collections.abc.Iterator[None]:
        """Counts a client of this checkpoint, for batching."""
        self._sessions[checkpoint_id] += 1
        try:
            yield
        finally:
            self._sessions[checkpoint_id] -= 1

    @contextlib.asynccontextmanager
    async def use(self, checkpoint_id: str) -> AsyncIterator[batching.InferenceThread]:
        """The checkpoint's thread; it stays in memory inside the block. Raises whatever loading raised."""
        entry = await self._enter(checkpoint_id)
        try:
            assert entry.loading is not None
            await asyncio.shield(entry.loading)
            yield entry.inference
        finally:
            async with self._idle:
                entry.users -= 1
                self._idle.notify_all()

    async def close(self) -> None:
        """Let every policy go."""
        for entry in self._entries.values():
            if entry.loading:
                entry.loading.cancel()
            entry.inference.stop()
        self._entries.clear()

    async def _enter(self, checkpoint_id: str) -> Entry:
        async with self._idle:
            while checkpoint_id not in self._entries and not self._make_room():
                await self._idle.wait()
            if checkpoint_id not in self._entries:
                self._entries[checkpoint_id] = self._start(checkpoint_id)
            self._entries.move_to_end(checkpoint_id)
            entry = self._entries[checkpoint_id]
            entry.users += 1
            return entry

    def _make_room(self) -> bool:
        if len(self._entries) < self._bound:
            return True
        leaver = next((name for name, entry in self._entries.items() if not entry.users), None)
        if leaver is None:
            return False
        logger.info("%s leaves memory", leaver)
        self._entries.pop(leaver).inference.stop()
        gc.collect()  # models hold reference cycles, and their memory is wanted now
        return True

    def _start(self, checkpoint_id: str) -> Entry:
        inference = batching.InferenceThread(self._batch, self._metrics, lambda: self._sessions[checkpoint_id])
        entry = Entry(inference)
        entry.loading = asyncio.create_task(self._fill(checkpoint_id, entry))
        return entry

    async def _fill(self, checkpoint_id: str, entry: Entry) -> None:
        logger.info("Loading %s", checkpoint_id)
        try:
            entry.inference.use(await entry.inference.call(lambda: self._load(checkpoint_id)))
        except BaseException:
            entry.inference.stop()
            if self._entries.get(checkpoint_id) is entry:
                del self._entries[checkpoint_id]
            raise
        logger.info("%s is ready", checkpoint_id)
