"""Several processes with a policy each, behind one port.

The front reads no message: every request goes, as it is, to the replica with the fewest requests on their way, so
clients are spread evenly however long they stay. A replica that dies is started again; what it was working on goes
to another one. Replicas end with the front, however that ends.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import prometheus_client
import websockets
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.asyncio.server import ServerConnection

from openpi.serving.conversation import CLOSE_REASON
from openpi.serving.service import Health, ServiceOptions, WebsocketService
from openpi_runtime import ties

logger = logging.getLogger(__name__)

FIRST_RESTART_S, LAST_RESTART_S = 0.5, 30.0
STEADY_S = 60.0  # a replica that lived so long starts again at once when it dies
STOP_S = 10.0
TRIES = 3  # replicas that one request may go to

Command = Callable[[int, str], Sequence[str]]


@dataclasses.dataclass(eq=False)
class Replica:
    """One process: argv from `command(number, socket path)`; the socket answers once its policy is ready."""

    number: int
    command: Command
    path: str
    environment: dict[str, str]
    outstanding: int = 0
    ready: bool = False
    failure: str = ""
    starts: int = 0
    process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> None:
        """Start it, and again whenever it ends."""
        delay = FIRST_RESTART_S
        while True:
            started = time.monotonic()
            await self._run_once()
            delay = FIRST_RESTART_S if time.monotonic() - started > STEADY_S else min(2 * delay, LAST_RESTART_S)
            logger.warning("Replica %d has ended; it starts again in %.1f s", self.number, delay)
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """End the process, with force where it does not end by itself."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _run_once(self) -> None:
        Path(self.path).unlink(missing_ok=True)
        argv = ties.tied(self.command(self.number, self.path))
        environment = {**os.environ, **self.environment}
        self.process = await asyncio.create_subprocess_exec(*argv, env=environment)
        self.starts += 1
        watching = asyncio.create_task(self._become_ready())
        try:
            await self.process.wait()
        finally:
            self.ready = False
            watching.cancel()

    async def _become_ready(self) -> None:
        while not self.ready:
            with contextlib.suppress(OSError, websockets.WebSocketException):
                link = await connect(self.path)
                metadata = await link.recv()  # held back while the replica loads; text: it could not
                await link.close()
                self.ready, self.failure = not isinstance(metadata, str), metadata if isinstance(metadata, str) else ""
                logger.info("Replica %d: %s", self.number, self.failure or "ready")
                if self.failure:
                    return
            await asyncio.sleep(0.05)


async def connect(path: str) -> ClientConnection:
    """A link to a replica, on which frames pass as they are."""
    return await unix_connect(path, compression=None, max_size=None, close_timeout=1.0, open_timeout=5.0)


class ReplicaServer(WebsocketService):
    """Serves what `count` replicas compute. `devices` (of CUDA) are dealt out to them in turn."""

    def __init__(
        self,
        command: Command,
        count: int,
        host: str = "0.0.0.0",
        port: int | None = None,
        *,
        devices: Sequence[str] = (),
        options: ServiceOptions | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"The number of replicas is {count}; it must be 1 or more.")
        super().__init__(host, port, options or ServiceOptions())
        self._folder = tempfile.TemporaryDirectory(prefix="openpi-replicas-")
        self.replicas = [
            Replica(number, command, f"{self._folder.name}/{number}", _device(devices, number))
            for number in range(count)
        ]
        into = self.metrics.registry
        self._up = prometheus_client.Gauge("openpi_replica_up", "1: ready.", ["replica"], registry=into)
        self._load = prometheus_client.Gauge("openpi_replica_requests", "On their way.", ["replica"], registry=into)
        self._starts = prometheus_client.Gauge("openpi_replica_starts", "Since the start.", ["replica"], registry=into)

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(replica.keep_running()) for replica in self.replicas]
        tasks.append(asyncio.create_task(self._watch_health()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*(replica.stop() for replica in self.replicas))
            self._folder.cleanup()

    async def _watch_health(self) -> None:
        while True:
            self.failure = _common_failure(self.replicas)
            self.health = Health.FAILED if self.failure else Health.LOADING
            if any(replica.ready for replica in self.replicas):
                self.health = Health.OK
            self.metrics.ready.set(self.health is Health.OK)
            await asyncio.sleep(0.02)

    def _metrics_text(self) -> bytes:
        for replica in self.replicas:
            self._up.labels(replica.number).set(replica.ready)
            self._load.labels(replica.number).set(replica.outstanding)
            self._starts.labels(replica.number).set(replica.starts)
        return super()._metrics_text()

    def _outstanding(self) -> int:
        return sum(replica.outstanding for replica in self.replicas)

    async def _converse(self, connection: ServerConnection) -> None:
        relay = _Relay(self.replicas, connection)
        relaying = asyncio.create_task(relay.run())
        leaving = asyncio.create_task(connection.wait_closed())
        await asyncio.wait({relaying, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (relaying, leaving):
            task.cancel()
        outcomes = await asyncio.gather(relaying, return_exceptions=True)
        relay.drop_links()
        if isinstance(outcomes[0], Exception) and not isinstance(outcomes[0], websockets.ConnectionClosed):
            logger.error("Relaying failed", exc_info=outcomes[0])


class _Relay:
    """One client's requests, and its links to the replicas that have answered them so far."""

    def __init__(self, replicas: Sequence[Replica], connection: ServerConnection) -> None:
        self._replicas, self._connection = replicas, connection
        self._links: dict[Replica, ClientConnection] = {}

    async def run(self) -> None:
        """Relay until an error, which is text and the last thing the client hears."""
        answer = await self._metadata()
        while True:
            await self._connection.send(answer)
            if isinstance(answer, str):
                await self._connection.close(code=1011, reason=CLOSE_REASON)
                return
            answer = await self._ask(await self._connection.recv())

    def drop_links(self) -> None:
        """Leave at once, so that the replicas forget what they were asked."""
        for link in self._links.values():
            link.transport.abort()
        self._links.clear()

    async def _metadata(self) -> bytes | str:
        while not (failure := _common_failure(self._replicas)):
            replica = await self._least_busy()
            with contextlib.suppress(OSError, websockets.WebSocketException):
                return (await self._link(replica))[1]
        return failure

    async def _ask(self, frame: bytes | str) -> bytes | str:
        for _ in range(TRIES):
            replica = await self._least_busy()
            replica.outstanding += 1
            try:
                link, _ = await self._link(replica)
                await link.send(frame)
                return await link.recv()
            except (OSError, websockets.WebSocketException):
                logger.warning("Replica %d went away during a request; another one gets it", replica.number)
                self._links.pop(replica, None)
                await asyncio.sleep(0.02)
            finally:
                replica.outstanding -= 1
        return f"{TRIES} replicas went away while they worked on this request; it may be what they cannot bear."

    async def _least_busy(self) -> Replica:
        while not (ready := [replica for replica in self._replicas if replica.ready]):
            if _common_failure(self._replicas):
                return self._replicas[0]  # which says why
            await asyncio.sleep(0.02)
        return min(ready, key=lambda replica: replica.outstanding)

    async def _link(self, replica: Replica) -> tuple[ClientConnection, bytes | str]:
        """The link to a replica, and the metadata that came first if it is new."""
        if replica in self._links:
            return self._links[replica], b""
        link = await connect(replica.path)
        metadata = await link.recv()
        self._links[replica] = link
        return link, metadata


def _common_failure(replicas: Sequence[Replica]) -> str:
    """Why no replica will ever get ready; empty while one may."""
    return replicas[0].failure if all(replica.failure for replica in replicas) else ""


def _device(devices: Sequence[str], number: int) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {}
