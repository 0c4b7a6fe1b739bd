"""The blocking policy client."""

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from openpi_client import async_client, base_policy, dialects, errors
from openpi_client.async_client import ClientOptions
from openpi_client.round_trip import RoundTripStats
from openpi_client.tended_loop import TendedLoop

TEND_EVERY_S = 0.02  # between calls: pings, and a server that says goodbye

T = TypeVar("T")


class WebsocketClientPolicy(base_policy.BasePolicy):
    """A policy that runs on a server: connects when made (waiting for the server), then `infer` as with any policy.

    `host` is a name, an address or a ws:// or wss:// URL. A server that is gone, hangs or answers garbage makes
    `infer` raise within `options.timeout_s`; the next call connects again. Threads may share a client: their
    requests go one after the other. `cancel` releases whoever waits.

    Raises:
        ServerLostError: no server within options.connect_timeout_s, or (ServerRefusedError) it refuses this client.
    """

    def __init__(
        self,
        host: str = "0.0.0.0",
        port: int | None = None,
        api_key: str | None = None,
        *,
        options: ClientOptions | None = None,
    ) -> None:
        self._open(async_client.policy_url(host, port), api_key, options, dialects.PolicyDialect())

    def _open(self, url: str, api_key: str | None, options: ClientOptions | None, dialect: dialects.Dialect) -> None:
        self._client = async_client.AsyncWebsocketClientPolicy(url, api_key, options=options, dialect=dialect)
        self._calls = _Calls(self._client.drop)
        self._finalizer = weakref.finalize(self, _Calls.stop, self._calls)
        try:
            self._run(self._client.connect())
        except BaseException:
            self.close()
            raise

    @property
    def stats(self) -> RoundTripStats:
        """Round-trip times and counters."""
        return self._client.stats

    def get_server_metadata(self) -> dict[str, Any]:
        """What the server said when it was connected last."""
        return self._client.metadata

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Send one observation, wait for the result.

        Raises:
            ServerTimeoutError, ServerLostError, InferenceError, ProtocolError: see `AsyncWebsocketClientPolicy`.
            RequestCancelledError: another thread called `cancel` or `close`.
        """
        return self._calls.run(self._client.infer(obs), functools.partial(self._client.head_start, obs))

    def reset(self) -> None:
        """Nothing to reset: policies behind this protocol keep no state."""

    def cancel(self) -> None:
        """Make every `infer` that waits raise RequestCancelledError; the server forgets their requests."""
        self._calls.cancel()

    def close(self) -> None:
        """Release the connection and its thread. A closed client cannot be used again."""
        self.cancel()
        with contextlib.suppress(errors.PolicyClientError):  # another thread may be closing it as well
            self._run(self._client.close())
        self._finalizer()

    def __enter__(self) -> "WebsocketClientPolicy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._calls.run(call)


class _Calls:
    """Runs one call at a time, in the thread that makes it; in between, a thread answers the server's pings.

    The lock keeps a call from beginning once it was cancelled, and every use of the loop before its end.
    """

    def __init__(self, at_end: Callable[[], None]) -> None:
        self._at_end = at_end
        self._tended = TendedLoop(TEND_EVERY_S)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._cancelled = 0  # how often
        self._task: asyncio.Task[Any] | None = None
        self._thread = threading.Thread(target=self._main, name="openpi-client", daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, T], before: Callable[[], None] = lambda: None) -> T:
        """`before` is done while the loop stands still: entering it takes a while."""
        if asyncio._get_running_loop() is not None:  # as in a notebook: a thread runs one loop at a time
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                return pool.submit(self.run, call, before).result()
        cancelled = self._cancelled
        with contextlib.closing(call):
            self._check_open()
            with self._tended.turn:
                return self._finish(self._begin(call, before, cancelled))

    def cancel(self) -> None:
        with self._lock:
            self._cancelled += 1
            if self._task is not None:
                self._tended.loop.call_soon_threadsafe(self._task.cancel)

    def stop(self) -> None:
        self._ended.set()
        if threading.current_thread() is not self._thread:  # as a garbage collection may make it
            self._thread.join(timeout=5.0)

    def _begin(self, call: Coroutine[Any, Any, T], before: Callable[[], None], cancelled: int) -> "asyncio.Task[T]":
        with self._lock:
            self._check_open()
            if cancelled != self._cancelled:
                raise errors.RequestCancelledError("The request was cancelled while it waited for its turn.")
            before()
            self._task = task = self._tended.loop.create_task(self._stopping(call))
            return task

    async def _stopping(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            return await call
        finally:
            self._tended.loop.stop()  # at the end of this round; `run_until_complete` takes one more

    def _finish(self, task: "asyncio.Task[T]") -> T:
        try:
            while not task.done():
                self._tended.loop.run_forever()
            return task.result()
        except asyncio.CancelledError:
            raise errors.RequestCancelledError("The request was cancelled.") from None
        finally:
            with self._lock:
                self._task = None
            if not task.done():  # interrupted from the keyboard
                task.cancel()
                while not task.done():
                    self._tended.turn_once()

    def _check_open(self) -> None:
        if self._ended.is_set() or not self._thread.is_alive():  # threads do not survive a fork
            raise errors.ServerLostError("This client has been closed.")

    def _main(self) -> None:
        self._tended.tend(self._ended)
        with self._tended.turn, asyncio.Runner(loop_factory=lambda: self._tended.loop) as runner:
            runner.get_loop()
            self._at_end()  # then the runner cancels whatever is left
