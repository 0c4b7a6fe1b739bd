"""A server of many checkpoints: each websocket is a session with one of them, through a codec.

`GET /api/v1/models` lists the checkpoints; `/api/v1/session` is a session with the latest, and
`/api/v1/session/{checkpoint_id}` with a certain one. The server speaks first: `{"status": .., "meta": ..}`, again and
again while the checkpoint loads, until the status is "ready". A client that knows no status and sends its observation
at the first `meta` hears no more of them. Every observation is answered by `{"result": ..}` or `{"error": ..}`, and an
error does not end the session.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import logging
import traceback
from collections.abc import AsyncIterator, Sequence
from typing import Any

import fastapi
from starlette.websockets import WebSocketState

from openpi.codecs import Codec
from openpi.serving import messages
from openpi.serving.batching import BatchOptions, InferencePolicy
from openpi.serving.checkpoint_store import CheckpointStore, UnknownCheckpointError
from openpi.serving.metrics import ServerMetrics
from openpi.serving.policy_cache import Load, PolicyCache
from openpi.serving.service import Health
from openpi_client import msgpack_numpy

logger = logging.getLogger(__name__)

FIRST_STATUS_S = 1.0  # a checkpoint that is there sooner is not announced as loading
STATUS_EVERY_S = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How a session server behaves.

    checkpoint: what `/api/v1/session` serves; None is the latest. codec: None hands observations to the policy, and
    results to the client, as they are. in_memory: most checkpoints loaded at a time. preload: load the default one
    at the start. api_keys: keys that clients may show (none: everybody may come).
    """

    codec: Codec | None = None
    config_name: str = ""
    checkpoint: str | None = None
    in_memory: int = 1
    preload: bool = True
    batch: BatchOptions = dataclasses.field(default_factory=BatchOptions)
    api_keys: Sequence[str] = ()


def create_app(store: CheckpointStore, load: Load, options: SessionOptions) -> fastapi.FastAPI:
    """The server as an ASGI application. `load(checkpoint_id)` gives a policy, warm."""
    sessions = _Sessions(store, load, options)
    app = fastapi.FastAPI(title="openpi sessions", lifespan=sessions.lifespan)
    app.add_api_route("/api/v1/models", sessions.models)
    app.add_api_route("/healthz", sessions.healthz)
    app.add_api_route("/metrics", sessions.metrics_text)
    app.add_api_websocket_route("/api/v1/session", sessions.latest)
    app.add_api_websocket_route("/api/v1/session/{checkpoint_id}", sessions.certain)
    return app


class _Sessions:
    def __init__(self, store: CheckpointStore, load: Load, options: SessionOptions) -> None:
        self._store, self._options = store, options
        self._load = load
        self.metrics = ServerMetrics()
        self._note(Health.LOADING if options.preload else Health.OK)
        self._cache = PolicyCache(self._load_and_note, options.in_memory, options.batch, self.metrics)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: fastapi.FastAPI) -> AsyncIterator[None]:
        preloading = asyncio.create_task(self._preload()) if self._options.preload else None
        yield
        if preloading:
            preloading.cancel()
        await self._cache.close()

    async def healthz(self) -> fastapi.Response:
        """Loading until the default checkpoint is in memory; failed until one loads, where that one could not."""
        return fastapi.Response(self._health.text(self._failure), self._health.value, media_type="text/plain")

    async def metrics_text(self, request: fastapi.Request) -> fastapi.Response:
        self._check_key(request)
        return fastapi.Response(self.metrics.text(), media_type="text/plain")

    async def models(self, request: fastapi.Request) -> dict[str, list[str]]:
        self._check_key(request)
        try:
            return {"models": await asyncio.to_thread(self._store.ids)}
        except OSError as error:
            raise fastapi.HTTPException(503, f"The checkpoints cannot be listed: {error}") from error

    async def latest(self, websocket: fastapi.WebSocket) -> None:
        await self._session(websocket, self._options.checkpoint)

    async def certain(self, websocket: fastapi.WebSocket, checkpoint_id: str) -> None:
        await self._session(websocket, checkpoint_id)

    async def _session(self, websocket: fastapi.WebSocket, wanted: str | None) -> None:
        if not self._may_come(websocket.headers.get("authorization", "")):
            await websocket.close()  # before it is accepted: HTTP 403
            return
        headers = [(name.encode(), value.encode()) for name, value in messages.offered().items()]
        await websocket.accept(headers=headers)
        self.metrics.connections.inc()
        try:
            await _Session(websocket, self._store, self._cache, self._options, self.metrics).run(wanted)
        except (fastapi.WebSocketDisconnect, asyncio.CancelledError):
            logger.debug("A client left")
        finally:
            self.metrics.connections.dec()

    async def _preload(self) -> None:
        try:
            async with self._cache.use(await asyncio.to_thread(self._store.resolve, self._options.checkpoint)):
                pass
        except UnknownCheckpointError as error:  # it may yet appear
            self._note(Health.OK)
            logger.warning("No checkpoint is loaded: %s", error)
        except Exception as error:  # a session will say it again, to somebody who asks for this checkpoint
            self._note(Health.FAILED, f"{type(error).__name__}: {error}")
            logger.error("The default checkpoint is not loaded: %s", error)

    def _load_and_note(self, checkpoint_id: str) -> InferencePolicy:
        policy = self._load(checkpoint_id)
        self._note(Health.OK)
        return policy

    def _note(self, health: Health, failure: str = "") -> None:
        self._health, self._failure = health, failure
        self.metrics.ready.set(health is Health.OK)

    def _check_key(self, request: fastapi.Request) -> None:
        if not self._may_come(request.headers.get("authorization", "")):
            raise fastapi.HTTPException(401, "This server needs 'Authorization: Api-Key ...'.")

    def _may_come(self, shown: str) -> bool:
        keys = self._options.api_keys
        return not keys or any(hmac.compare_digest(shown.encode(), f"Api-Key {key}".encode()) for key in keys)


class _Session:
    def __init__(
        self,
        websocket: fastapi.WebSocket,
        store: CheckpointStore,
        cache: PolicyCache,
        options: SessionOptions,
        metrics: ServerMetrics,
    ) -> None:
        self._websocket, self._store, self._cache = websocket, store, cache
        self._options, self._metrics = options, metrics
        self._frames: asyncio.Queue[bytes | str] = asyncio.Queue(1)

    async def run(self, wanted: str | None) -> None:
        """Greet, then answer until the client leaves."""
        answering = asyncio.create_task(self._answer_all(wanted))
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({answering, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answering, reading):
                task.cancel()
            await asyncio.gather(answering, reading, return_exceptions=True)

    async def _read(self) -> None:
        """Feeds the frames in, and ends when the client leaves, which a server that only answers would not see."""
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            frame = message.get("bytes")
            await self._frames.put(frame if frame is not None else message.get("text", ""))

    async def _answer_all(self, wanted: str | None) -> None:
        checkpoint_id = await self._greet(wanted)
        if checkpoint_id is None:
            return
        with self._cache.session(checkpoint_id):
            while True:
                await self._send(await self._answer(checkpoint_id, await self._frames.get()))

    async def _greet(self, wanted: str | None) -> str | None:
        """Load the checkpoint and introduce it; None where that fails, which the client is told."""
        try:
            checkpoint_id = await asyncio.to_thread(self._store.resolve, wanted)
            meta = await asyncio.to_thread(self._meta, checkpoint_id)
            await self._load(checkpoint_id, meta)
        except (UnknownCheckpointError, OSError) as error:
            await self._refuse(str(error))
            return None
        except Exception as error:
            logger.exception("A checkpoint could not be loaded")
            await self._refuse(f"The checkpoint could not be loaded: {type(error).__name__}: {error}")
            return None
        if not self._client_spoke:
            await self._send({"status": "ready", "meta": meta})
        return checkpoint_id

    @property
    def _client_spoke(self) -> bool:
        return not self._frames.empty()

    async def _load(self, checkpoint_id: str, meta: dict[str, Any]) -> None:
        async def loaded() -> None:
            async with self._cache.use(checkpoint_id):
                pass

        loading, wait_s = asyncio.create_task(loaded()), FIRST_STATUS_S
        try:
            while not (await asyncio.wait({loading}, timeout=wait_s))[0]:
                if not self._client_spoke:
                    words = f"loading {checkpoint_id}"
                    await self._send({"status": "loading", "message": words, "meta": meta})
                wait_s = STATUS_EVERY_S
            await loading
        finally:
            loading.cancel()

    def _meta(self, checkpoint_id: str) -> dict[str, Any]:
        codec = self._options.codec
        return {
            "checkpoint_id": checkpoint_id,
            "checkpoint_path": self._store.address_of(checkpoint_id),
            "codec": codec.name if codec else "none",
            "codec_info": codec.metadata() if codec else {},
            "config_name": self._options.config_name,
        }

    async def _answer(self, checkpoint_id: str, frame: bytes | str) -> dict[str, Any]:
        try:
            observation = messages.decode(frame)
            result = await self._infer(checkpoint_id, observation)
        except ValueError as error:  # of the observation; BadRequestError is one
            self._metrics.requests.labels("bad_request").inc()
            return {"error": str(error)}
        except Exception as error:
            self._metrics.requests.labels("error").inc()
            logger.exception("Inference failed")
            return {"error": f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"}
        self._metrics.requests.labels("ok").inc()
        return {"result": result}

    async def _infer(self, checkpoint_id: str, observation: dict[str, Any]) -> dict[str, Any]:
        codec = self._options.codec
        encoded = observation
        if codec:
            rtc = {key: value for key, value in observation.items() if key.startswith("rtc/")}
            encoded = {**await asyncio.to_thread(codec.encode, observation), **rtc}
        async with self._cache.use(checkpoint_id) as inference:
            result, infer_s = await inference.submit(encoded)
        decoded = codec.decode(result, observation) if codec else result
        return {**decoded, "server_timing": {"infer_ms": infer_s * 1e3}}

    async def _send(self, message: dict[str, Any]) -> None:
        await self._websocket.send_bytes(msgpack_numpy.packb(message))

    async def _refuse(self, words: str) -> None:
        await self._send({"status": "error", "error": words})
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.close(code=1008, reason="see the error in the previous frame")
