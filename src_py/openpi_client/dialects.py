"""The two message protocols: what a server says first, and how its answers read."""

from typing import Any, Protocol

from openpi_client import errors, msgpack_numpy


class Dialect(Protocol):
    """Everything in which a policy server and a session server differ."""

    goes_on_after_errors: bool

    def greeting(self, frame: bytes | str) -> dict[str, Any] | str:
        """Metadata from a message before the first request, or what the server says while it is not ready yet."""

    def answer(self, frame: bytes | str) -> dict[str, Any]:
        """The result of a request. Raises InferenceError where the server reports an error."""


class PolicyDialect:
    """The published protocol: metadata first, then one map an observation; text is an error, after which it closes."""

    goes_on_after_errors = False

    def greeting(self, frame: bytes | str) -> dict[str, Any] | str:
        return self.answer(frame)

    def answer(self, frame: bytes | str) -> dict[str, Any]:
        if isinstance(frame, str):
            raise errors.InferenceError(f"Error in inference server:\n{frame}")
        return _unpack_map(frame)


class SessionDialect:
    """A session server: `{"meta": ..}`, with another status than "ready" while it loads, then results or errors."""

    goes_on_after_errors = True

    def greeting(self, frame: bytes | str) -> dict[str, Any] | str:
        message = _session_message(frame)
        status = message.get("status", "ready")
        if status != "ready":
            return str(message.get("message") or status)
        meta = message.get("meta")
        if not isinstance(meta, dict):
            raise errors.ProtocolError(f"The session server greeted with {sorted(message)}, not with 'meta'.")
        return meta

    def answer(self, frame: bytes | str) -> dict[str, Any]:
        message = _session_message(frame)
        if "result" not in message:
            raise errors.ProtocolError(f"The session server answered with {sorted(message)}, not with 'result'.")
        return message["result"]


def _session_message(frame: bytes | str) -> dict[str, Any]:
    if isinstance(frame, str):
        raise errors.ProtocolError(f"The session server sent text, not msgpack: {frame[:200]!r}")
    message = _unpack_map(frame)
    if "error" in message:
        raise errors.InferenceError(f"Error in session server: {message['error']}")
    return message


def _unpack_map(frame: bytes) -> dict[str, Any]:
    try:
        message = msgpack_numpy.unpackb(frame)
    except Exception as error:  # msgpack raises many kinds; the frame is bad whichever it is
        raise errors.ProtocolError(f"The server sent {len(frame)} bytes that are no message: {error}") from error
    if not isinstance(message, dict):
        raise errors.ProtocolError(f"The server sent a {type(message).__name__} where a map belongs.")
    return message
