"""Policy clients for asyncio; the blocking ones in `websocket_client_policy` are built on them."""

import asyncio
import contextlib
import dataclasses
import random
import ssl
import time
import urllib.parse
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from openpi_client import dialects, errors, frames, jpeg
from openpi_client.round_trip import RoundTripStats

FEATURES_HEADER = "X-Openpi-Features"  # in the server's handshake answer: what it takes beyond the published protocol
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a client behaves.

    timeout_s: for one `infer`, reconnecting included. connect_timeout_s: for the first connection and for the
    server's greeting, which a loading server holds back. jpeg_quality: send pictures as JPEG where the server takes
    them; None sends them as they are. tls: context for wss addresses.
    """

    timeout_s: float = 60.0
    connect_timeout_s: float = 300.0
    jpeg_quality: int | None = None
    tls: ssl.SSLContext | None = None
    max_message_bytes: int | None = None


def policy_url(host: str, port: int | None) -> str:
    """`host` may be a name, an address, or a whole ws:// or wss:// URL; `port` is added where it is given."""
    url = host if host.startswith(("ws://", "wss://")) else f"ws://{host}"
    return url if port is None else f"{url}:{port}"


class AsyncWebsocketClientPolicy:
    """`infer` as a coroutine. One request is on its way at a time; further ones wait their turn.

    A cancelled or timed-out request drops the connection, by which the server knows that nobody waits any more;
    the next one connects again, with back-off.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        options: ClientOptions | None = None,
        dialect: dialects.Dialect | None = None,
    ) -> None:
        self.url = url
        self.options = options or ClientOptions()
        self.stats = RoundTripStats()
        self.metadata: dict[str, Any] = {}
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else {}
        self._dialect = dialect or dialects.PolicyDialect()
        self._connection: ClientConnection | None = None
        self._awaited = ""  # connected, and the server is not ready yet: what it says of that
        self._turn = asyncio.Lock()
        self._writer = frames.FrameWriter()
        self._under_way: _Sent | None = None  # before `infer` has come to it

    async def connect(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Connect unless connected, retrying until the time is over; return the server's metadata.

        Raises:
            ServerLostError: no server within the time (default: connect_timeout_s). ServerRefusedError: it refused.
            InferenceError: it reported that loading failed. ProtocolError: it speaks another protocol.
        """
        async with self._turn:
            await self._connected(self.options.connect_timeout_s if timeout_s is None else timeout_s)
        return self.metadata

    async def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Send one observation, return the policy's result.

        Raises:
            ServerTimeoutError: no answer within timeout_s. ServerLostError: no server, or it went away.
            InferenceError: the server reports an error. ProtocolError: its answer is garbage.
        """
        async with self._turn:
            start = time.perf_counter()
            self.stats.requests += 1
            try:
                return await self._exchange(obs, start)
            except BaseException:
                self.stats.failures += 1
                raise

    def head_start(self, obs: dict[str, Any]) -> None:
        """Send at once what the next call of `infer` is for, where connected, while nothing runs the event loop.

        What is wrong with it, that call tells.
        """
        connection = self._connection
        if self._under_way is not None:
            self.drop()  # nobody came for its answer
        elif connection is not None and not self._turn.locked():
            with contextlib.suppress(Exception):
                self._under_way = self._packed(obs, connection, time.perf_counter())
                self._writer.write(connection)

    async def reset(self) -> None:
        """The protocol has no reset: policies behind it keep no state."""

    async def close(self) -> None:
        """Close the connection properly. The client may be used again afterwards."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def drop(self) -> None:
        """Give up the connection at once, without the closing handshake that a dead server would not answer."""
        connection, self._connection, self._under_way = self._connection, None, None
        if connection is not None:
            connection.transport.abort()

    async def _exchange(self, obs: dict[str, Any], start: float) -> dict[str, Any]:
        connection = await self._connected(self.options.timeout_s)
        sent, self._under_way = self._under_way, None
        if sent is None or sent.connection is not connection:
            sent = self._packed(obs, connection, start)
            self._writer.write(connection)  # which waits for nothing
        left_s = self.options.timeout_s - (time.perf_counter() - start)
        try:
            frame = await self._round_trip(connection, left_s)
            result = self._dialect.answer(frame)
        except BaseException as error:
            if not (isinstance(error, errors.InferenceError) and self._dialect.goes_on_after_errors):
                self.drop()  # whatever is still to come on this connection belongs to no request of ours
            raise
        self._count(sent, len(frame), result)
        return result

    def _packed(self, obs: dict[str, Any], connection: ClientConnection, start: float) -> "_Sent":
        return _Sent(connection, self._writer.pack(self._prepared(obs, connection)), start)

    async def _round_trip(self, connection: ClientConnection, timeout_s: float) -> bytes | str:
        try:
            async with asyncio.timeout(timeout_s):
                return await connection.recv()
        except TimeoutError:
            raise errors.ServerTimeoutError(
                f"The policy server at {self.url} did not answer within {self.options.timeout_s:g} s."
            ) from None
        except (websockets.ConnectionClosed, OSError) as error:
            raise errors.ServerLostError(f"The policy server at {self.url} went away: {error}") from error

    def _prepared(self, obs: dict[str, Any], connection: ClientConnection) -> dict[str, Any]:
        response = connection.response
        offered = response.headers.get(FEATURES_HEADER, "") if response else ""
        if self.options.jpeg_quality is None or "jpeg" not in offered.split():
            return obs
        return jpeg.compress(obs, self.options.jpeg_quality)

    def _count(self, sent: "_Sent", received: int, result: Any) -> None:
        self.stats.bytes_sent += sent.size
        self.stats.bytes_received += received
        self.stats.times_ms.append((time.perf_counter() - sent.start) * 1e3)
        timing = result.get("server_timing") if isinstance(result, dict) else None
        if isinstance(timing, dict):
            self.stats.server_ms = float(timing.get("infer_ms", 0.0))

    async def _connected(self, timeout_s: float) -> ClientConnection:
        if self._connection is not None and self._connection.close_code is None:
            return self._connection
        self._connection = None
        try:
            async with asyncio.timeout(timeout_s):
                self._connection = await self._connect_with_backoff()
        except TimeoutError:
            raise errors.ServerTimeoutError(self._not_connected(timeout_s)) from None
        self.stats.connections += 1
        return self._connection

    def _not_connected(self, timeout_s: float) -> str:
        if self._awaited:
            there = f"The policy server at {self.url} is there"
            return f"{there}, but was not ready within {timeout_s:g} s: {self._awaited}."
        return f"No policy server at {self.url} within {timeout_s:g} s."

    async def _connect_with_backoff(self) -> ClientConnection:
        delay = FIRST_RETRY_S
        while True:
            self._awaited = ""
            try:
                return await self._connect_once()
            except (OSError, websockets.InvalidHandshake, websockets.ConnectionClosed, EOFError) as error:
                _raise_if_refused(error, self.url)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # robots of one fleet must not return in step
            delay = min(2 * delay, LAST_RETRY_S)

    async def _connect_once(self) -> ClientConnection:
        connection = await websockets.connect(
            self.url,
            additional_headers=self._headers,
            compression=None,
            max_size=self.options.max_message_bytes,
            open_timeout=None,
            close_timeout=1.0,
            proxy=None,
            ssl=(self.options.tls or True) if self.url.startswith("wss:") else None,
        )
        self._awaited = "it may be loading"
        try:
            self.metadata = await self._greeting(connection)
        except BaseException:
            connection.transport.abort()
            raise
        return connection

    async def _greeting(self, connection: ClientConnection) -> dict[str, Any]:
        while isinstance(said := self._dialect.greeting(await connection.recv()), str):
            self._awaited = said
        return said


@dataclasses.dataclass(frozen=True)
class _Sent:
    connection: ClientConnection
    size: int
    start: float


def session_url(base: str, checkpoint_id: str | None) -> str:
    """Address of a session with one checkpoint, or with the latest one."""
    path = "/api/v1/session" + (f"/{urllib.parse.quote(checkpoint_id, safe='')}" if checkpoint_id else "")
    return base.rstrip("/") + path


def _raise_if_refused(error: Exception, url: str) -> None:
    if isinstance(error, websockets.InvalidStatus) and error.response.status_code in (401, 403, 404, 426):
        words = (error.response.body or b"").decode(errors="replace").strip()
        raise errors.ServerRefusedError(
            f"The policy server at {url} refuses this client: HTTP {error.response.status_code} {words}"
        ) from error
    if isinstance(error, ssl.SSLCertVerificationError):
        raise errors.ServerRefusedError(f"The certificate of {url} cannot be trusted: {error}") from error
