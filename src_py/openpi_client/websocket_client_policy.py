"""The blocking policy client."""

import asyncio
import concurrent.futures
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from openpi_client import async_client, base_policy, dialects, errors
from openpi_client.async_client import ClientOptions
from openpi_client.round_trip import RoundTripStats

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
        self._loop = _LoopThread(self._client.drop)
        self._finalizer = weakref.finalize(self, _LoopThread.stop, self._loop)
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
        return self._run(self._client.infer(obs))

    def reset(self) -> None:
        """Nothing to reset: policies behind this protocol keep no state."""

    def cancel(self) -> None:
        """Make every `infer` that waits raise RequestCancelledError; the server forgets their requests."""
        self._loop.cancel()

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
        future = self._loop.submit(call)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise errors.RequestCancelledError("The request was cancelled.") from None
        finally:
            self._loop.discard(future)


class _LoopThread:
    """An event loop in a thread of its own: it answers the server's pings while the caller is busy.

    The lock keeps every call into the loop before its end, after which nothing may be asked of it.
    """

    def __init__(self, at_end: Callable[[], None]) -> None:
        self._at_end = at_end
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._open = True
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._thread = threading.Thread(target=self._main, name="openpi-client", daemon=True)
        self._thread.start()

    def submit(self, call: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        with self._lock:
            if not self._open or not self._thread.is_alive():  # threads do not survive a fork
                call.close()
                raise errors.ServerLostError("This client has been closed.")
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
            self._waiting.add(future)
            return future

    def discard(self, future: "concurrent.futures.Future[Any]") -> None:
        """Nobody waits for it any more, be it done or not."""
        with self._lock:
            self._waiting.discard(future)
            if self._open:
                future.cancel()

    def cancel(self) -> None:
        with self._lock:
            for future in self._waiting if self._open else ():
                future.cancel()

    def stop(self) -> None:
        with self._lock:
            if self._open:
                self._open = False
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:  # as a garbage collection may make it
            self._thread.join(timeout=5.0)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # at its end, cancels whatever is left
            runner.get_loop().run_forever()
            self._at_end()
