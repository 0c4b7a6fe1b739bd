"""Binary websocket frames (RFC 6455, section 5.2), written to a connection's transport.

The connections' own `send` copies and masks an observation in fresh memory, and takes about 0.1 ms for a small answer.
"""

import secrets
import struct
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from openpi_client import msgpack_numpy

FINAL_BINARY, MASKED = 0x82, 0x80
HEADER_ROOM = 16  # of the 14 bytes that the longest header has; a multiple of 4 keeps the payload's words aligned
WORD = np.uint32


class FrameWriter:
    """Packs an observation into one masked websocket frame, and writes it to a connection."""

    def __init__(self) -> None:
        self._packer = msgpack_numpy.Packer(autoreset=False)
        self._memory = bytearray()
        self._frame = memoryview(b"")

    def pack(self, obs: dict[str, Any]) -> int:
        """Make the next frame; returns the size of its message. Raises ValueError for what cannot be sent."""
        self._packer.reset()
        self._packer.pack(obs)
        with self._packer.getbuffer() as message:
            self._frame = self._masked(message)
            return len(message)

    def write(self, connection: ClientConnection) -> None:
        """Hand the frame to the connection's transport; where it has been closed, the next `recv` will tell."""
        if connection.state is State.OPEN:
            connection.transport.write(self._frame)
            if connection.transport.get_write_buffer_size():  # some of the memory may still be read from
                self._memory = bytearray()

    def _masked(self, message: memoryview) -> memoryview:
        size, key = len(message), secrets.token_bytes(4)
        if len(self._memory) < HEADER_ROOM + size:
            self._memory = bytearray(HEADER_ROOM + size)
        _mask(message, key, np.frombuffer(self._memory, np.uint8, size, offset=HEADER_ROOM))
        header = _header(size, MASKED) + key
        start = HEADER_ROOM - len(header)
        self._memory[start:HEADER_ROOM] = header
        return memoryview(self._memory)[start : HEADER_ROOM + size]


def _mask(message: memoryview, key: bytes, masked: np.ndarray) -> None:
    plain, pattern = np.frombuffer(message, np.uint8), np.frombuffer(key, np.uint8)
    words = len(plain) // 4 * 4
    np.bitwise_xor(plain[:words].view(WORD), pattern.view(WORD), out=masked[:words].view(WORD))
    np.bitwise_xor(plain[words:], pattern[: len(plain) - words], out=masked[words:])


def send_now(connection: ServerConnection, message: bytes) -> bool:
    """Send unless the client is slow to read what it was sent before, or gone: then `connection.send` is for it."""
    if connection.state is not State.OPEN or connection.transport.get_write_buffer_size():
        return False
    connection.transport.write(_header(len(message), 0) + message)
    return True


def _header(size: int, masked: int) -> bytes:
    if size < 126:
        return struct.pack("!BB", FINAL_BINARY, masked | size)
    if size < 1 << 16:
        return struct.pack("!BBH", FINAL_BINARY, masked | 126, size)
    return struct.pack("!BBQ", FINAL_BINARY, masked | 127, size)
