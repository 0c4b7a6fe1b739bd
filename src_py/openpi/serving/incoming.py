"""What has come on a connection and is not parsed yet."""

LINE_BYTES = 1 << 13  # as long as a line of HTTP may be
FIRST_BYTES, KEPT_BYTES = 1 << 16, 1 << 25


class Incoming:
    """Memory that the socket writes to and frames are read from, in place of the bytearray of websockets' parser.

    That one copies every message into itself and out of itself; here it stays where it came. The memory doubles when
    it is full, so nobody gets more of it than they have sent, and is kept for the next message.
    """

    def __init__(self) -> None:
        self._memory = bytearray(FIRST_BYTES)
        self._start = self._end = 0

    def room(self) -> memoryview:
        """Where the next bytes belong. Views that were handed out before are not valid any more."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._memory) > KEPT_BYTES:
                self._memory = bytearray(FIRST_BYTES)
        elif self._end == len(self._memory):
            rest = memoryview(self._memory)[self._start :]
            self._memory = bytearray(max(FIRST_BYTES, 2 * len(rest)))
            self._memory[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return memoryview(self._memory)[self._end :]

    def __iadd__(self, data: memoryview) -> "Incoming":
        self._end += len(data)  # they lie in `room` already
        return self

    def __len__(self) -> int:
        return self._end - self._start

    def find(self, what: bytes, start: int) -> int:
        """As of bytes."""
        return max(-1, self._memory.find(what, self._start + start, self._end) - self._start)

    def __getitem__(self, piece: slice) -> bytes | memoryview:
        start, stop, _ = piece.indices(len(self))
        view = memoryview(self._memory)[self._start + start : self._start + stop]
        return view if len(view) > LINE_BYTES else bytes(view)  # lines have methods that views lack

    def __delitem__(self, piece: slice) -> None:
        self._start += piece.indices(len(self))[1]  # the parser only takes away from the front
