import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpi_runtime.chunk import ActionChunk, ChunkBuffer, ChunkCursor

PERIOD_NS = 20_000_000


def make(stamp_ns: int = 0, horizon: int = 10, chunk_id: int = 1) -> ActionChunk:
    actions = np.arange(horizon, dtype=np.float64)[:, None]
    return ActionChunk(chunk_id=chunk_id, stamp_ns=stamp_ns, period_ns=PERIOD_NS, actions=actions, action_names=("a",))


def test_steps_are_due_a_period_apart_from_the_stamp_on() -> None:
    chunk = make(stamp_ns=1000 * PERIOD_NS)
    assert chunk.position(1002 * PERIOD_NS + PERIOD_NS // 2) == 2.5
    assert chunk.due_ns(3) == 1003 * PERIOD_NS
    assert chunk.end_ns == 1009 * PERIOD_NS


def test_cursor_enters_by_time_and_counts_what_was_executed() -> None:
    cursor = ChunkCursor(make())
    assert cursor.left() == 10
    assert [cursor.advance(k * PERIOD_NS) for k in (4, 5, 6)] == [4, 5, 6]
    assert (cursor.entered, cursor.last, cursor.left()) == (4, 6, 3)
    assert cursor.last_due_ns == 6 * PERIOD_NS


def test_cursor_skips_what_was_missed_and_repeats_what_is_early() -> None:
    cursor = ChunkCursor(make())
    assert [cursor.advance(round(k * PERIOD_NS)) for k in (0, 3, 3.05, 4)] == [0, 3, 3, 4]


def test_cursor_ends() -> None:
    cursor = ChunkCursor(make())
    assert cursor.advance(9 * PERIOD_NS) == 9
    assert cursor.advance(10 * PERIOD_NS) is None
    assert cursor.advance(-5 * PERIOD_NS) == 9  # a clock that runs back repeats, it does not rewind


@given(phase=st.floats(0, 1), jitter=st.lists(st.floats(-0.19, 0.19), min_size=30, max_size=30))
def test_jitter_of_ticks_neither_skips_nor_repeats(phase: float, jitter: list[float]) -> None:
    cursor = ChunkCursor(make(horizon=40))
    steps = [cursor.advance(round((k + phase + offset) * PERIOD_NS)) for k, offset in enumerate(jitter)]
    assert steps[0] is not None
    assert steps == list(range(steps[0], steps[0] + 30))


def test_entry_of_a_new_chunk_lies_after_the_step_executed_last() -> None:
    buffer = ChunkBuffer()
    buffer.add(make())
    assert buffer.newest is not None
    buffer.newest.advance(5 * PERIOD_NS)
    buffer.add(make(stamp_ns=2 * PERIOD_NS, chunk_id=2))
    assert buffer.newest.advance(5 * PERIOD_NS) == 4


def test_buffer_is_bounded_ordered_and_forgets() -> None:
    buffer = ChunkBuffer(capacity=3)
    for i in range(5):
        buffer.add(make(stamp_ns=i * PERIOD_NS, chunk_id=i))
    assert [cursor.chunk.chunk_id for cursor in buffer.cursors] == [2, 3, 4]
    with pytest.raises(ValueError, match="older than chunk 4"):
        buffer.add(make(stamp_ns=0))
    buffer.forget_past(13 * PERIOD_NS)
    assert [cursor.chunk.chunk_id for cursor in buffer.cursors] == [4]
    buffer.keep_newest(0)
    assert buffer.cursors == ()
    assert buffer.newest is None
