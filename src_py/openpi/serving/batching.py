"""The line of requests before a policy, and the thread that computes them."""

import abc
import asyncio
import contextlib
import dataclasses
import functools
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from openpi.serving.metrics import ServerMetrics
from openpi_client.tended_loop import TendedLoop

THREAD_NAME = "openpi-inference"
TEND_EVERY_S = 0.005  # while the policy computes

T = TypeVar("T")
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
class Call:
    """A function to be called where the policy runs."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]


@dataclasses.dataclass(eq=False)
class Request:
    """One observation in line; `cancelled` once nobody waits for it."""

    observation: Observation
    then: Callable[[Result, float], Any]
    future: asyncio.Future[Any]
    entered: float = dataclasses.field(default_factory=time.perf_counter)
    cancelled: bool = False


class Inference(abc.ABC):
    """Computes what is in line, away from the event loop's callbacks, in batches where the policy takes them.

    A batch is what has come in when the policy gets free, up to `max_size`. It waits up to `max_wait_ms` for more
    only while fewer requests are in line than clients are connected (`expected`): a lone client never waits.
    """

    def __init__(self, options: BatchOptions, metrics: ServerMetrics, expected: Callable[[], int]) -> None:
        self._options, self._metrics, self._expected = options, metrics, expected
        self._policy: InferencePolicy | None = None
        self._line: queue.SimpleQueue[Request | Call | None] = queue.SimpleQueue()
        self._waiting: set[Request] = set()  # of the event loop alone
        metrics.watch(self)
        self._left = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Requests that wait or are computed now."""
        return len(self._waiting)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function where the policy runs: loading, warming up."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(Call(function, future))
        return await future

    async def room(self) -> None:
        """Wait until there is room in line."""
        while len(self._waiting) >= self._options.max_waiting:
            self._left.clear()
            await self._left.wait()

    def use(self, policy: InferencePolicy) -> None:
        """From now on, infer with this policy."""
        self._policy = policy

    def submit(
        self, observation: Observation, then: Callable[[Result, float], Any] = lambda *both: both
    ) -> asyncio.Future[Any]:
        """What `then` makes of the policy's result and the time its batch took [s]; without it, these two.

        `then` is called at once, before the event loop gets round to those who wait for the future. Cancelling takes
        the request out of the line.
        """
        request = Request(observation, then, asyncio.get_running_loop().create_future())
        self._waiting.add(request)
        request.future.add_done_callback(lambda _: self._leave(request))
        self._put(request)
        return request.future

    def stop(self) -> None:
        """End after what runs now."""
        self._put(None)

    def _put(self, item: "Request | Call | None") -> None:
        self._line.put(item)

    @abc.abstractmethod
    def _take(self, timeout_s: float | None = None) -> "Request | Call | None":
        """The next in line. Raises queue.Empty when the time is over."""

    @abc.abstractmethod
    def _compute(self, function: Callable[[], T]) -> T:
        """Make a call of the policy's code."""

    @abc.abstractmethod
    def _tell(self, loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        """Have this called as the event loop's own functions are."""

    def _leave(self, request: Request) -> None:
        request.cancelled = True
        self._waiting.discard(request)
        self._left.set()

    def _main(self) -> None:
        while (item := self._take()) is not None:
            if isinstance(item, Call):
                self._call(item)
            elif not item.cancelled:
                self._run([item, *self._company()])

    def _call(self, call: Call) -> None:
        value, error = self._compute(functools.partial(_outcome, call.function))
        self._tell(call.future.get_loop(), lambda: _settle(call.future, value, error))

    def _company(self) -> list[Request]:
        """More requests for the batch that one request has opened."""
        company: list[Request] = []
        if not hasattr(self._policy, "infer_batch") or (self._expected() <= 1 and self._line.empty()):
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
            item = self._take(wait) if wait > 0 else self._line.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, Request):
            return item
        self._line.put(item)  # not for a batch: it comes after it
        return None

    def _run(self, batch: list[Request]) -> None:
        start = time.perf_counter()
        outcomes = self._compute(functools.partial(self._infer, [request.observation for request in batch]))
        elapsed = time.perf_counter() - start
        loop = batch[0].future.get_loop()

        def settle() -> None:
            for request, (result, error) in zip(batch, outcomes, strict=True):
                if error is None and not request.future.done():
                    result, error = _outcome(functools.partial(request.then, result, elapsed))
                _settle(request.future, result, error)
            loop.call_soon(self._count, batch, start, elapsed)  # once the answers are on their way

        self._tell(loop, settle)

    def _count(self, batch: list[Request], start: float, elapsed: float) -> None:
        self._metrics.infer_seconds.observe(elapsed)
        self._metrics.batch_size.observe(len(batch))
        for request in batch:
            self._metrics.queue_seconds.observe(start - request.entered)

    def _infer(self, observations: Sequence[Observation]) -> list[tuple[Any, BaseException | None]]:
        policy: Any = self._policy
        if len(observations) > 1:
            results, error = _outcome(lambda: policy.infer_batch(list(observations)))
            if error is None and len(results) == len(observations):
                return [(result, None) for result in results]
            # One bad observation fails the whole batch: let each one speak for itself.
        return [_outcome(functools.partial(policy.infer, observation)) for observation in observations]


class InferenceThread(Inference):
    """A thread that does nothing else, beside an event loop that somebody else runs."""

    def __init__(self, options: BatchOptions, metrics: ServerMetrics, expected: Callable[[], int]) -> None:
        super().__init__(options, metrics, expected)
        threading.Thread(target=self._main, name=THREAD_NAME, daemon=True).start()

    def _take(self, timeout_s: float | None = None) -> Request | Call | None:
        return self._line.get(timeout=timeout_s)

    def _compute(self, function: Callable[[], T]) -> T:
        return function()

    def _tell(self, loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(function)


class TendedInference(Inference):
    """Computes on the thread that runs the event loop in between, which saves a request two hand-overs.

    While the policy computes, the thread that called `serve` lets the loop turn every few milliseconds, so that
    pings, HTTP and new requests are answered and read all the same, however long it takes.
    """

    def __init__(self, options: BatchOptions, metrics: ServerMetrics, expected: Callable[[], int]) -> None:
        super().__init__(options, metrics, expected)
        self._tended = TendedLoop(TEND_EVERY_S)
        self._ended = threading.Event()

    def serve(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` to its end, with everything it puts in line. A policy that never returns is left behind."""
        task = self._tended.loop.create_task(main)
        task.add_done_callback(self._end)
        thread = threading.Thread(target=self._own, name=THREAD_NAME, daemon=True)
        thread.start()
        self._tended.tend(self._ended)
        thread.join(1.0)
        task.result()

    def stop(self) -> None:
        """Nothing: it ends with what `serve` runs."""

    def _own(self) -> None:
        with self._tended.turn, asyncio.Runner(loop_factory=lambda: self._tended.loop) as runner:
            runner.get_loop()
            self._main()  # and then the runner closes the loop

    def _end(self, _: asyncio.Task[None]) -> None:
        self._ended.set()
        self._put(None)

    def _put(self, item: Request | Call | None) -> None:
        super()._put(item)
        self._tended.loop.stop()

    def _take(self, timeout_s: float | None = None) -> Request | Call | None:
        loop = self._tended.loop
        if not self._line.empty():
            self._tended.turn_once()  # a line that never ends keeps nothing else waiting
            return self._line.get_nowait()
        end = loop.call_later(timeout_s, loop.stop) if timeout_s is not None else None
        loop.run_forever()  # until something is put in line
        if end is not None:
            end.cancel()
        return self._line.get_nowait()

    def _compute(self, function: Callable[[], T]) -> T:
        self._tended.turn.release()
        try:
            return function()
        finally:
            self._tended.turn.acquire()

    def _tell(self, loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
        function()


def _outcome(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:  # whatever it is, it belongs to the request, not to the thread
        return None, error


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
