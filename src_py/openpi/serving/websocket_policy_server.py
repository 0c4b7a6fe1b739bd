"""Serves one policy over websockets, by the published openpi protocol.

On connecting, the client gets the metadata; then every binary message is an observation and is answered by one
binary message, the policy's result plus `server_timing`. An error is answered by a text message, then the connection
is closed with code 1011. Plain HTTP on the same port: `/healthz`, `/metrics`.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from openpi.serving import batching
from openpi.serving.batching import BatchOptions, InferencePolicy
from openpi.serving.conversation import Conversation
from openpi.serving.service import Connection, Health, ServiceOptions, WebsocketService

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions(ServiceOptions):
    """Everything beyond host, port and metadata; see ServiceOptions too.

    example: an observation to warm up with, also used to say what was wrong with a bad one.
    """

    batch: BatchOptions = dataclasses.field(default_factory=BatchOptions)
    example: Mapping[str, Any] | None = None


class WebsocketPolicyServer(WebsocketService):
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
        self.options = options or ServerOptions()
        super().__init__(host, port, self.options)
        self._policy, self._metadata = policy, metadata
        self._tended: batching.TendedInference | None = None

    def _run_loop(self) -> None:
        self._tended = batching.TendedInference(self.options.batch, self.metrics, lambda: self._clients)
        self._tended.serve(self.run())

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        self._loaded = asyncio.Event()
        self._inference: batching.Inference = self._tended or batching.InferenceThread(
            self.options.batch, self.metrics, lambda: self._clients
        )
        loading = asyncio.create_task(self._load())
        try:
            yield
        finally:
            loading.cancel()
            self._inference.stop()

    async def _converse(self, connection: Connection) -> None:
        conversation = Conversation(connection, self._inference, self.metrics, self.options.example)
        await conversation.wait(self._loaded.wait())
        if self.health is Health.FAILED:
            await conversation.fail(f"The policy could not be loaded: {self.failure}")
        else:
            await conversation.run(self._metadata or {})

    def _outstanding(self) -> int:
        return self._inference.waiting

    async def _load(self) -> None:
        try:
            policy = await self._inference.call(self._load_and_warm_up)
            self._inference.use(policy)
            if self._metadata is None:
                self._metadata = getattr(policy, "metadata", None) or {}
            self.health = Health.OK
            self.metrics.ready.set(1)
            logger.info("Ready on %s:%s", self.host, self.port)
        except Exception as error:
            self.health, self.failure = Health.FAILED, f"{type(error).__name__}: {error}"
            logger.exception("The policy could not be loaded")
        self._loaded.set()

    def _load_and_warm_up(self) -> InferencePolicy:
        policy = self._policy if hasattr(self._policy, "infer") else self._policy()
        if self.options.example is not None:
            start = time.perf_counter()
            getattr(policy, "warm_up", policy.infer)(dict(self.options.example))
            logger.info("Warmed up in %.1f s", time.perf_counter() - start)
        return policy
