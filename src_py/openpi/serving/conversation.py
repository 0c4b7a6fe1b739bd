"""What the policy server and one of its clients say to each other."""

import asyncio
import contextlib
import dataclasses
import logging
import time
import traceback
from collections.abc import Awaitable, Mapping
from typing import Any

import websockets
from websockets.frames import Frame, Opcode

from openpi.serving import batching, messages
from openpi.serving.metrics import ServerMetrics
from openpi.serving.service import Connection
from openpi_client import frames, msgpack_numpy

logger = logging.getLogger(__name__)

CLOSE_REASON = "Internal server error. Traceback included in previous frame."


class Conversation:
    """Metadata, then request by request. When the client leaves, what it waits for is cancelled."""

    def __init__(
        self,
        connection: Connection,
        inference: batching.Inference,
        metrics: ServerMetrics,
        example: Mapping[str, Any] | None,
    ) -> None:
        self._connection, self._inference, self._metrics, self._example = connection, inference, metrics, example
        self._start = 0.0  # of the request in hand [s]
        self._prev_total_ms: float | None = None
        self._listening = False  # for a message, with none before it
        self._begun: _Exchange | None = None
        self._packer = msgpack_numpy.Packer()  # keeps its buffer, which is large

    async def wait(self, work: Awaitable[Any]) -> None:
        """Wait for `work`, or until the client leaves."""
        waiting, leaving = asyncio.ensure_future(work), asyncio.ensure_future(self._connection.wait_closed())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            leaving.cancel()

    async def run(self, metadata: dict[str, Any]) -> None:
        """Converse until the client leaves or an error ends it."""
        leaving = asyncio.ensure_future(self._connection.wait_closed())
        leaving.add_done_callback(lambda _: self._begun and self._begun.pending.cancel())
        try:
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._connection.send(msgpack_numpy.packb(metadata))
                self._connection.on_data = self._head_start
                await self._answer_all()
        finally:
            leaving.cancel()

    async def fail(self, words: str) -> None:
        """Tell the client what is wrong and close the connection."""
        with contextlib.suppress(websockets.ConnectionClosed):
            await self._connection.send(words)
            await self._connection.close(code=1011, reason=CLOSE_REASON)

    async def _answer_all(self) -> None:
        while True:
            self._listening = True
            frame = await self._connection.recv()
            self._listening = False
            try:
                answer = await self._answer(frame)
            except messages.BadRequestError as error:
                return await self._give_up("bad_request", str(error))
            except asyncio.CancelledError:
                self._metrics.requests.labels("abandoned").inc()
                raise
            except Exception:
                logger.exception("Inference failed")
                return await self._give_up("error", traceback.format_exc())
            if not answer.sent:
                await self._connection.send(answer.message)
            self._count(len(frame), len(answer.message))
            self._prev_total_ms = (time.monotonic() - self._start) * 1e3

    async def _give_up(self, outcome: str, words: str) -> None:
        self._metrics.requests.labels(outcome).inc()
        await self.fail(words)

    def _head_start(self, frame: Frame) -> None:
        """Begin with a lone request before `recv` returns it, which takes the event loop two more turns."""
        listening, self._listening = self._listening, False
        if listening and frame.opcode is Opcode.BINARY and frame.fin and not self._inference.waiting:
            self._start = time.monotonic()
            with contextlib.suppress(messages.BadRequestError):  # `recv` returns it all the same
                self._begin(messages.decode(bytes(frame.data)))

    def _begin(self, observation: dict[str, Any]) -> "_Exchange":
        self._begun = _Exchange(observation, self._inference.submit(observation, self._reply))
        return self._begun

    async def _answer(self, frame: bytes | str) -> "_Answer":
        begun = self._begun
        if begun is None:
            self._start = time.monotonic()
            observation = messages.decode(frame)
            await self._inference.room()
            begun = self._begin(observation)
        try:
            return await begun.pending
        except Exception as error:
            words = messages.explain(begun.observation, self._example)
            words = words or (str(error) if isinstance(error, ValueError) else "")
            if words:
                raise messages.BadRequestError(f"{words}\n\n{traceback.format_exc()}") from error
            raise
        finally:
            self._begun = None

    def _reply(self, result: dict[str, Any], infer_s: float) -> "_Answer":
        timing = {"infer_ms": infer_s * 1e3}
        if self._prev_total_ms is not None:
            timing["prev_total_ms"] = self._prev_total_ms
        try:
            message = self._packer.pack({**result, "server_timing": timing})
        except Exception as error:
            raise RuntimeError(f"The policy's result cannot be sent: {error}") from error
        return _Answer(message, sent=frames.send_now(self._connection, message))

    def _count(self, received: int, sent: int) -> None:
        self._metrics.requests.labels("ok").inc()
        self._metrics.received_bytes.inc(received)
        self._metrics.sent_bytes.inc(sent)


@dataclasses.dataclass(frozen=True)
class _Exchange:
    observation: dict[str, Any]
    pending: asyncio.Future["_Answer"]


@dataclasses.dataclass(frozen=True)
class _Answer:
    message: bytes
    sent: bool
