"""One thread for what must not block a callback: inference, and loading a policy."""

import collections
import queue
import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

Job = Callable[[], Any]
Done = Callable[[Any], None]

# A hung inference cannot be interrupted; the thread is a daemon, so that the process ends all the same.
_JOIN_TIMEOUT_S = 2.0


class Worker:
    """Runs jobs one after the other on its own thread; their outcomes come back on the node's executor.

    `done` gets what the job returned, or the exception it raised.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._outcomes: collections.deque[tuple[Done, Any]] = collections.deque()
        self._guard = node.create_guard_condition(self._deliver)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Done = lambda _: None) -> None:
        """Queues a job; `done` is called in the executor's thread, never before this returns."""
        self._jobs.put((job, done))

    def close(self) -> None:
        """Runs what is queued, then ends the thread; outcomes that have not come back by now are dropped."""
        self._jobs.put(None)
        self._thread.join(_JOIN_TIMEOUT_S)
        self._node.destroy_guard_condition(self._guard)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                outcome = job()
            except Exception as error:
                outcome = error
            self._outcomes.append((done, outcome))
            self._guard.trigger()

    def _deliver(self) -> None:
        while self._outcomes:
            done, outcome = self._outcomes.popleft()
            done(outcome)
