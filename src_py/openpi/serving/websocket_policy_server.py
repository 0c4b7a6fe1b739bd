"""Serves one policy over websockets, by the published openpi protocol.

On connecting, the client gets the metadata; then every binary message is an observation and is answered by one
binary message, the policy's result plus `server_timing`. An error is answered by a text message, then the connection
is closed with code 1011. Plain HTTP on the same port: `/healthz`, `/metrics`.
"""

import asyncio
import contextlib
import dataclasses
import enum
import hmac
import http
import importlib.util
import logging
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from openpi.serving import batching
from openpi.serving.batching import BatchOptions, InferencePolicy
from openpi.serving.conversation import Conversation
from openpi.serving.metrics import ServerMetrics
from openpi_client.async_client import FEATURES_HEADER

logger = logging.getLogger(__name__)


class Health(enum.Enum):
    """What `/healthz` says, and the HTTP status it says it with."""

    LOADING = http.HTTPStatus.SERVICE_UNAVAILABLE
    OK = http.HTTPStatus.OK
    FAILED = http.HTTPStatus.INTERNAL_SERVER_ERROR


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Everything beyond host, port and metadata.

    api_keys: keys that clients may show (none: everybody may come). tls: makes it wss. max_message_bytes: of one
    observation. max_clients: further ones are turned away with 503. example: an observation to warm up with, also
    used to say what was wrong with a bad one. shutdown_s: how long requests may take to finish at the end.
    """

    batch: BatchOptions = dataclasses.field(default_factory=BatchOptions)
    api_keys: Sequence[str] = ()
    tls: ssl.SSLContext | None = None
    max_message_bytes: int | None = None
    max_clients: int = 1024
    example: Mapping[str, Any] | None = None
    shutdown_s: float = 10.0


class WebsocketPolicyServer:
    """Serves a policy, or what a function without arguments loads: then `/healthz` answers while it loads.

    All of the policy's code runs on one thread beside the event loop, so that pings and HTTP are answered during a
    long inference. Requests of several clients are batched where the policy has `infer_batch`. Clients that connect
    while the policy loads get the metadata once it is warm. Without `metadata`, the policy's own is sent.
    """

    def __init__(
        self,
        policy: InferencePolicy | Callable[[], InferencePolicy],
        host: str = "0.0.0.0",
        port: int | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        options: ServerOptions | None = None,
    ) -> None:
        self._policy, self._host, self._port, self._metadata = policy, host, port, metadata
        self.options = options or ServerOptions()
        self.metrics = ServerMetrics()
        self.health = Health.LOADING
        self.failure = ""
        self._clients = 0
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None

    @property
    def port(self) -> int | None:
        """The port listened on; chosen by the system where 0 was asked for."""
        return self._port

    def serve_forever(self) -> None:
        """Serve until SIGINT, SIGTERM or `shutdown`."""
        asyncio.run(self.run())

    async def run(self) -> None:
        """Serve until cancelled, or ended as `serve_forever` is; requests on their way are finished."""
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        self._loaded = asyncio.Event()
        with _signals(self._loop, self._ending), self._inference_thread():
            async with self._listen() as server:
                self._port = server.sockets[0].getsockname()[1]
                self._started.set()
                loading = asyncio.create_task(self._load())
                await self._ending.wait()
                loading.cancel()
                await self._finish(server)

    def wait_started(self, timeout_s: float = 10.0) -> bool:
        """Block, from another thread, until the port is open."""
        return self._started.wait(timeout_s)

    def shutdown(self) -> None:
        """End `run` from any thread."""
        if self._loop is not None and self._ending is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ending.set)

    @contextlib.contextmanager
    def _inference_thread(self) -> Iterator[None]:
        self._inference = batching.InferenceThread(self.options.batch, self.metrics, lambda: self._clients)
        try:
            yield
        finally:
            self._inference.stop()

    def _listen(self) -> contextlib.AbstractAsyncContextManager[Server]:
        return serve(
            self._handle,
            self._host,
            self._port,
            compression=None,
            max_size=self.options.max_message_bytes,
            process_request=self._http,
            process_response=_offer_features,
            ssl=self.options.tls,
            max_queue=1,  # a client that floods is not read from while its first request waits
            close_timeout=2.0,
            logger=logging.getLogger("openpi.serving.websockets"),
        )

    async def _load(self) -> None:
        try:
            policy = await self._inference.call(self._load_and_warm_up)
            self._inference.use(policy)
            if self._metadata is None:
                self._metadata = getattr(policy, "metadata", None) or {}
            self.health = Health.OK
            self.metrics.ready.set(1)
            logger.info("Ready on %s:%s", self._host, self._port)
        except Exception as error:
            self.health, self.failure = Health.FAILED, f"{type(error).__name__}: {error}"
            logger.exception("The policy could not be loaded")
        self._loaded.set()

    def _load_and_warm_up(self) -> InferencePolicy:
        policy = self._policy if hasattr(self._policy, "infer") else self._policy()
        warm_up = getattr(policy, "warm_up", None)
        if self.options.example is not None:
            start = time.perf_counter()
            warm_up(self.options.example) if warm_up else policy.infer(dict(self.options.example))
            logger.info("Warmed up in %.1f s", time.perf_counter() - start)
        return policy

    async def _finish(self, server: Server) -> None:
        server.close(close_connections=False)
        deadline = time.monotonic() + self.options.shutdown_s
        while self._inference.waiting and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)  # lets the last answers go out
        server.close(close_connections=True)

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(self.health.value, self._health_text())
        if not self._may_come(request.headers):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "This server needs 'Authorization: Api-Key ...'.\n")
        if path == "/metrics":
            response = connection.respond(http.HTTPStatus.OK, self.metrics.text().decode())
            response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return response
        if self._clients >= self.options.max_clients:
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE, "This server has no room for more clients.\n"
            )
        return None

    def _health_text(self) -> str:
        detail = f": {self.failure}" if self.failure else ""
        return f"{'OK' if self.health is Health.OK else self.health.name.lower()}{detail}\n"

    def _may_come(self, headers: Headers) -> bool:
        shown = headers.get("Authorization", "").encode()
        keys = self.options.api_keys
        return not keys or any(hmac.compare_digest(shown, f"Api-Key {key}".encode()) for key in keys)

    async def _handle(self, connection: ServerConnection) -> None:
        self._clients += 1
        self.metrics.connections.inc()
        logger.debug("Client %s came", connection.remote_address)
        try:
            await self._converse(Conversation(connection, self._inference, self.metrics, self.options.example))
        finally:
            self._clients -= 1
            self.metrics.connections.dec()
            logger.debug("Client %s left", connection.remote_address)

    async def _converse(self, conversation: Conversation) -> None:
        await conversation.wait(self._loaded.wait())
        if self.health is Health.FAILED:
            await conversation.fail(f"The policy could not be loaded: {self.failure}")
        else:
            await conversation.run(self._metadata or {})


def _offer_features(connection: ServerConnection, request: Request, response: Response) -> Response:
    if importlib.util.find_spec("PIL"):
        response.headers[FEATURES_HEADER] = "jpeg"
    return response


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, ending: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the server; outside the main thread, they are somebody else's."""
    chosen = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    for number in chosen:
        loop.add_signal_handler(number, ending.set)
    try:
        yield
    finally:
        for number in chosen:
            loop.remove_signal_handler(number)
