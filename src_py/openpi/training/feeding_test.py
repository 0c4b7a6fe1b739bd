"""Batches that are ready when the step wants them, and the count of the time when they are not."""

import contextlib
import itertools
import threading
from collections.abc import Iterator

import pytest

from openpi.training.feeding import Feeder


class Step:
    """Stands in for an array that a step makes: there at once, or not before the end of the test."""

    def __init__(self, ready: bool) -> None:
        self.ready = ready

    def is_ready(self) -> bool:
        return self.ready

    def block_until_ready(self) -> None:
        """Does not block: a step that is not ready is known by `is_ready`."""


def test_order_is_kept_and_batches_are_made_ahead() -> None:
    made: list[int] = []
    ahead = threading.Event()

    def source() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            if number == 3:
                ahead.set()
            yield number

    with contextlib.closing(Feeder(source())) as feeder:
        assert [feeder.next(), feeder.next()] == [0, 1]
        assert ahead.wait(10)
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("ready", [True, False])
def test_only_a_step_that_is_done_waits(ready: bool) -> None:
    release = threading.Event()

    def slow() -> Iterator[int]:
        release.wait(10)
        yield from itertools.count()

    with contextlib.closing(Feeder(slow())) as feeder:
        threading.Timer(0.05, release.set).start()
        batch, waited_s = feeder.next_after(Step(ready))
    assert batch == 0
    assert (waited_s > 0) == ready


def test_an_error_comes_in_its_batch_s_place() -> None:
    def source() -> Iterator[int]:
        yield 0
        raise ValueError("a broken video")

    with contextlib.closing(Feeder(source())) as feeder:
        assert feeder.next() == 0
        with pytest.raises(ValueError, match="a broken video"):
            feeder.next()


def test_closing_closes_the_source() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    Feeder(source()).close()
    assert closed == [True]
