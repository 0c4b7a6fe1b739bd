import os
import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

from openpi_ros.velocity_guard import MOVES, STANDS, watch


class Watched:
    """A guard in a thread, and the executor's end of its pipe."""

    def __init__(self, silence_s: float) -> None:
        reading, self.pipe = os.pipe()
        self.stopped = threading.Semaphore(0)
        self.thread = threading.Thread(target=watch, args=(reading, silence_s, self.stopped.release), daemon=True)
        self.thread.start()

    def say(self, words: bytes) -> None:
        os.write(self.pipe, words)

    def die(self) -> None:
        os.close(self.pipe)
        self.thread.join(5)
        assert not self.thread.is_alive()

    def stops(self) -> bool:
        return self.stopped.acquire(timeout=5)

    def never_stopped(self) -> bool:
        return not self.stopped.acquire(blocking=False)


@pytest.fixture
def patient() -> Watched:
    return Watched(60.0)


def test_an_executor_that_dies_while_the_robot_moves_is_stopped_for(patient: Watched) -> None:
    patient.say(STANDS + MOVES)
    patient.die()
    assert patient.stops()


def test_an_executor_that_ends_while_the_robot_stands_needs_nothing(patient: Watched) -> None:
    patient.say(MOVES + STANDS)
    patient.die()
    assert patient.never_stopped()


def test_an_executor_that_hangs_is_stopped_for_and_watched_on() -> None:
    hasty = Watched(0.02)
    for _ in range(2):
        hasty.say(MOVES)
        assert hasty.stops()
        assert hasty.stops()  # more than once
    hasty.die()
