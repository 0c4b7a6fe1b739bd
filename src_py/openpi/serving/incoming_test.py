import random

import pytest
from websockets.streams import StreamReader

from openpi.serving.incoming import FIRST_BYTES, KEPT_BYTES, LINE_BYTES, Incoming


@pytest.fixture
def reader():
    reader = StreamReader()
    reader.buffer = Incoming()
    return reader


def feed(reader, data, most=1 << 30):
    """As a socket does: whatever fits into the room there is."""
    while data:
        room = reader.buffer.room()
        size = min(len(room), len(data), most)
        room[:size] = data[:size]
        reader.feed_data(room[:size])
        data = data[size:]


def ended(generator):
    """What it returns, or None where it waits for more."""
    try:
        next(generator)
    except StopIteration as stop:
        return stop.value


def test_pieces_of_any_size_are_read_as_they_were_sent(reader):
    rng = random.Random(0)
    sizes = [rng.choice((0, 1, 14, LINE_BYTES, LINE_BYTES + 1, 3 * FIRST_BYTES)) for _ in range(60)]
    sent = rng.randbytes(sum(sizes))
    read, stream = bytearray(), memoryview(sent)
    for size in sizes:
        while (piece := ended(reader.read_exact(size))) is None:
            some = rng.randrange(1, 1 << 16)
            feed(reader, stream[:some], most=rng.randrange(1, 1 << 14))
            stream = stream[some:]
        assert len(piece) == size
        read += piece
    assert read == sent[: len(read)]
    assert len(read) == sum(sizes)


def test_a_line_may_come_in_parts(reader):
    feed(reader, b"\nGET / HT")
    assert ended(reader.read_exact(1)) == b"\n"
    line = reader.read_line(LINE_BYTES)
    assert ended(line) is None
    feed(reader, b"TP/1.1\r\nHost: a")
    assert ended(line).decode() == "GET / HTTP/1.1\r\n"
    feed(reader, b"\r\n")
    assert ended(reader.read_line(LINE_BYTES)).decode() == "Host: a\r\n"


def test_a_long_message_is_no_copy(reader):
    feed(reader, bytes(FIRST_BYTES - 1))
    assert isinstance(ended(reader.read_exact(FIRST_BYTES - 1)), memoryview)


def test_memory_follows_what_has_come_not_what_is_announced(reader):
    assert ended(reader.read_exact(1 << 60)) is None
    feed(reader, bytes(3 * FIRST_BYTES))
    assert len(reader.buffer) + len(reader.buffer.room()) <= 8 * FIRST_BYTES


def test_memory_is_kept_for_the_next_message_unless_it_is_huge(reader):
    for size, left in ((FIRST_BYTES + 1, 2 * FIRST_BYTES), (KEPT_BYTES + 1, FIRST_BYTES)):
        feed(reader, bytes(size))
        ended(reader.read_exact(size))
        assert len(reader.buffer.room()) == left
