"""A websocket service with a front door: health and metrics over HTTP, API keys, limits, graceful shutdown."""

import abc
import asyncio
import contextlib
import dataclasses
import enum
import functools
import hmac
import http
import logging
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.datastructures import Headers
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.protocol import Event

from openpi.serving import memory, messages
from openpi.serving.incoming import Incoming
from openpi.serving.metrics import ServerMetrics

logger = logging.getLogger(__name__)


class Health(enum.Enum):
    """What `/healthz` says, and the HTTP status it says it with."""

    LOADING = http.HTTPStatus.SERVICE_UNAVAILABLE
    OK = http.HTTPStatus.OK
    FAILED = http.HTTPStatus.INTERNAL_SERVER_ERROR

    def text(self, failure: str = "") -> str:
        """What `/healthz` says; `failure` is why it failed."""
        detail = f": {failure}" if failure else ""
        return f"{'OK' if self is Health.OK else self.name.lower() + detail}\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What any of the websocket services can be told.

    api_keys: keys that clients may show (none: everybody may come). tls: makes it wss. max_message_bytes: of one
    observation. max_clients: further ones are turned away with 503. shutdown_s: how long requests may take to
    finish at the end. unix_path: listen on this socket instead of host and port.
    """

    api_keys: Sequence[str] = ()
    tls: ssl.SSLContext | None = None
    max_message_bytes: int | None = None
    max_clients: int = 1024
    shutdown_s: float = 10.0
    unix_path: str | None = None


class WebsocketService(abc.ABC):
    """Listens, answers HTTP, lets clients in and out; what is said to them is the subclass's."""

    def __init__(self, host: str, port: int | None, options: ServiceOptions) -> None:
        self.host, self.port = host, port  # port 0: the system chooses, and `port` tells once it listens
        self.metrics = ServerMetrics()
        self.health = Health.LOADING
        self.failure = ""
        self._service_options = options
        self._clients = 0
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def serve_forever(self) -> None:
        """Serve until SIGINT, SIGTERM or `shutdown`."""
        memory.keep_freed()
        with _signals(self.shutdown):
            self._run_loop()

    async def run(self) -> None:
        """Serve until cancelled or `shutdown`; requests on their way are finished."""
        self._loop = asyncio.get_running_loop()
        async with self._working(), self._listen() as server:
            name = next(iter(server.sockets)).getsockname()
            self.port = name[1] if isinstance(name, tuple) else None
            self._started.set()
            await self._ending.wait()
            await self._finish(server)

    def wait_started(self, timeout_s: float = 10.0) -> bool:
        """Block, from another thread, until the port is open."""
        return self._started.wait(timeout_s)

    def shutdown(self) -> None:
        """End `run` from any thread."""
        if self._loop is None:
            self._ending.set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: it has ended
                self._loop.call_soon_threadsafe(self._ending.set)

    def _run_loop(self) -> None:
        asyncio.run(self.run())

    @abc.abstractmethod
    def _working(self) -> contextlib.AbstractAsyncContextManager[None]:
        """What runs beside the listening socket."""

    @abc.abstractmethod
    async def _converse(self, connection: "Connection") -> None:
        """Everything said to one client."""

    @abc.abstractmethod
    def _outstanding(self) -> int:
        """Requests that have no answer yet."""

    def _metrics_text(self) -> bytes:
        return self.metrics.text()

    def _listen(self) -> contextlib.AbstractAsyncContextManager[Server]:
        options = self._service_options
        listen: Any = functools.partial(serve, host=self.host, port=self.port)
        if options.unix_path:
            listen = functools.partial(unix_serve, path=options.unix_path)
        return listen(
            self._handle,
            create_connection=Connection,
            compression=None,
            max_size=options.max_message_bytes,
            process_request=self._http,
            process_response=_offer_features,
            ssl=options.tls,
            max_queue=4,  # a client that floods is not read from while its first requests wait
            close_timeout=2.0,
            logger=logging.getLogger("openpi.serving.websockets"),
        )

    async def _handle(self, connection: "Connection") -> None:
        self._clients += 1
        self.metrics.connections.inc()
        logger.debug("Client %s came", connection.remote_address)
        try:
            await self._converse(connection)
        finally:
            self._clients -= 1
            self.metrics.connections.dec()
            logger.debug("Client %s left", connection.remote_address)

    async def _finish(self, server: Server) -> None:
        server.close(close_connections=False)
        deadline = time.monotonic() + self._service_options.shutdown_s
        while self._outstanding() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)  # lets the last answers go out
        going_away = CloseCode.GOING_AWAY  # a second `server.close` would not tell those who are still here
        await asyncio.gather(*(connection.close(going_away) for connection in server.connections))

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(self.health.value, self.health.text(self.failure))
        if not self._may_come(request.headers):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "This server needs 'Authorization: Api-Key ...'.\n")
        if path == "/metrics":
            response = connection.respond(http.HTTPStatus.OK, self._metrics_text().decode())
            response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return response
        if self._clients >= self._service_options.max_clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "This server has no room for you now.\n")
        return None

    def _may_come(self, headers: Headers) -> bool:
        shown = headers.get("Authorization", "").encode()
        keys = self._service_options.api_keys
        return not keys or any(hmac.compare_digest(shown, f"Api-Key {key}".encode()) for key in keys)


class Connection(ServerConnection, asyncio.BufferedProtocol):
    """Has the socket write into the memory that frames are read from, and tells `on_data` of each at once."""

    on_data: Callable[[Frame], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._incoming = Incoming()
        self.protocol.reader.buffer = self._incoming  # type: ignore[assignment]  # it has what the reader uses

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._incoming.room()

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._incoming.room()[:nbytes])  # type: ignore[arg-type]  # which adds it to the reader's

    def process_event(self, event: Event) -> None:
        if self.on_data is not None and isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self.on_data(event)
        super().process_event(event)


def _offer_features(connection: ServerConnection, request: Request, response: Response) -> Response:
    response.headers.update(messages.offered())
    return response


@contextlib.contextmanager
def _signals(shutdown: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM end the service; outside the main thread, they are somebody else's."""
    chosen = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda *_: shutdown()) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
