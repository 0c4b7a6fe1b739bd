"""One thread that runs the policy, and the line of requests before it."""

import asyncio
import contextlib
import dataclasses
import functools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from openpi.serving.metrics import ServerMetrics

Observation: TypeAlias = dict[str, Any]
Result: TypeAlias = dict[str, Any]


class InferencePolicy(Protocol):
    """What a server needs; a policy with `infer_batch(list) -> list` as well has its requests batched."""

    def infer(self, obs: Observation) -> Result: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """max_size: requests in one batch. max_wait_ms: how long the first one waits for more. max_waiting: requests in
    line; further clients are not read from until there is room.
    """

    max_size: int = 16
    max_wait_ms: float = 2.0
    max_waiting: int = 256

    def __post_init__(self) -> None:
        if self.max_size < 1 or self.max_waiting < 1 or self.max_wait_ms < 0:
            raise ValueError(f"Batches need max_size and max_waiting of 1 or more and no negative wait, got {self}.")


@dataclasses.dataclass(eq=False)
class Request:
    """One observation in line; `cancelled` once nobody waits for it."""

    observation: Observation
    future: asyncio.Future[tuple[Result, float]]
    entered: float = dataclasses.field(default_factory=time.perf_counter)
    cancelled: bool = False


class InferenceThread:
    """Runs every call into a policy on one thread, so that the event loop stays free, and batches what waits.

    A batch is what has come in when the thread gets free, up to `max_size`. It waits up to `max_wait_ms` for more
    only while fewer requests are in line than clients are connected (`expected`): a lone client never waits.
    """

    def __init__(self, options: BatchOptions, metrics: ServerMetrics, expected: Callable[[], int]) -> None:
        self._options, self._metrics, self._expected = options, metrics, expected
        self._policy: InferencePolicy | None = None
        self._line: queue.SimpleQueue[Request | Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: set[Request] = set()  # of the event loop's thread alone
        self.room = asyncio.Semaphore(options.max_waiting)
        self._thread = threading.Thread(target=self._main, name="openpi-inference", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait or are computed now."""
        return len(self._waiting)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the inference thread: loading, warming up."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._line.put(lambda: _resolve(loop, future, *_outcome(function)))
        return await future

    def use(self, policy: InferencePolicy) -> None:
        """From now on, infer with this policy."""
        self._policy = policy

    def submit(self, observation: Observation) -> asyncio.Future[tuple[Result, float]]:
        """Result of the policy and the time its batch took [s]. Cancelling takes the request out of the line."""
        request = Request(observation, asyncio.get_running_loop().create_future())
        self._waiting.add(request)
        self._metrics.waiting.set(len(self._waiting))
        request.future.add_done_callback(lambda _: self._leave(request))
        self._line.put(request)
        return request.future

    def stop(self) -> None:
        """End the thread after what it runs now."""
        self._line.put(None)

    def _leave(self, request: Request) -> None:
        request.cancelled = True
        self._waiting.discard(request)
        self._metrics.waiting.set(len(self._waiting))

    def _main(self) -> None:
        while (item := self._line.get()) is not None:
            if callable(item):
                item()
            elif not item.cancelled:
                self._run([item, *self._company()])

    def _company(self) -> list[Request]:
        """More requests for the batch that one request has opened."""
        company: list[Request] = []
        if not hasattr(self._policy, "infer_batch"):
            return company
        deadline = time.perf_counter() + self._options.max_wait_ms / 1e3
        while len(company) + 1 < self._options.max_size:
            request = self._next(len(company) + 1, deadline)
            if request is None:
                break
            if not request.cancelled:
                company.append(request)
        return company

    def _next(self, size: int, deadline: float) -> Request | None:
        wait = deadline - time.perf_counter() if size < self._expected() else 0.0
        try:
            item = self._line.get(timeout=wait) if wait > 0 else self._line.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, Request):
            return item
        self._line.put(item)  # not for a batch: it comes after it
        return None

    def _run(self, batch: list[Request]) -> None:
        start = time.perf_counter()
        outcomes = self._infer([request.observation for request in batch])
        elapsed = time.perf_counter() - start
        self._metrics.infer_seconds.observe(elapsed)
        self._metrics.batch_size.observe(len(batch))
        for request, (result, error) in zip(batch, outcomes, strict=True):
            self._metrics.queue_seconds.observe(start - request.entered)
            _resolve(request.future.get_loop(), request.future, (result, elapsed), error)

    def _infer(self, observations: Sequence[Observation]) -> list[tuple[Any, BaseException | None]]:
        policy: Any = self._policy
        if len(observations) > 1:
            results, error = _outcome(lambda: policy.infer_batch(list(observations)))
            if error is None and len(results) == len(observations):
                return [(result, None) for result in results]
            # One bad observation fails the whole batch: let each one speak for itself.
        return [_outcome(functools.partial(policy.infer, observation)) for observation in observations]


def _outcome(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:  # whatever it is, it belongs to the request, not to the thread
        return None, error


def _resolve(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], value: Any, error: Any) -> None:
    def settle() -> None:
        if not future.done():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
        loop.call_soon_threadsafe(settle)
