import threading
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

import rclpy
from rclpy.clock import ROSClock
from rclpy.time import Time

from openpi_ros.ticker import Ticker

PERIOD_NS = 20_000_000
pytestmark = pytest.mark.ros


class Record:
    """What a ticker called."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []
        self._lock = threading.Lock()

    def __call__(self, now_ns: int, monotonic_ns: int, late_ns: int, due: bool) -> None:
        assert late_ns >= 0
        with self._lock:
            self.calls.append((now_ns, due))

    @property
    def due(self) -> list[int]:
        """Times of the ticks."""
        return [now for now, due in self.calls if due]


def wait(holds: Callable[[], bool], timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def clock() -> Iterator[ROSClock]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=1)
    node = rclpy.create_node("ticker_test", context=context, start_parameter_services=False)
    yield node.get_clock()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def ticker(clock: ROSClock, record: Record) -> Iterator[Ticker]:
    made = Ticker(clock, PERIOD_NS, record)
    yield made
    made.stop()


@pytest.fixture
def simulated(clock: ROSClock) -> ROSClock:
    clock._set_ros_time_is_active(True)
    clock.set_ros_time_override(Time(nanoseconds=10 * PERIOD_NS))
    return clock


def move(clock: ROSClock, to_ns: int) -> None:
    clock.set_ros_time_override(Time(nanoseconds=to_ns))


def test_ticks_lie_on_the_grid_of_the_wall_clock(ticker: Ticker, record: Record) -> None:
    ticker.start()
    wait(lambda: len(record.due) >= 10)
    cells = [now // PERIOD_NS for now in record.due]
    assert cells == sorted(set(cells))
    assert all(due for _, due in record.calls)


def test_poke_ticks_at_once_and_starts_a_new_phase(ticker: Ticker, record: Record) -> None:
    ticker.start()
    wait(lambda: len(record.due) >= 2)
    seen = len(record.due)
    time.sleep(0.005)
    ticker.poke()
    wait(lambda: len(record.due) >= seen + 4)
    poked = record.due[seen]
    cells = [(now - poked) // PERIOD_NS for now in record.due[seen:]]
    assert cells == sorted(set(cells)), "one tick in each period from the poke on"


def test_each_period_of_a_simulated_clock_is_one_tick(simulated: ROSClock, ticker: Ticker, record: Record) -> None:
    ticker.start()
    for step in range(11, 20):
        move(simulated, step * PERIOD_NS)
        wait(lambda step=step: record.due[-1:] == [step * PERIOD_NS])
    assert record.due == [step * PERIOD_NS for step in range(11, 20)]


def test_a_clock_that_stands_is_looked_at(simulated: ROSClock, ticker: Ticker, record: Record) -> None:
    ticker.start()
    wait(lambda: len(record.calls) >= 3)
    assert record.due == []
    ticker.poke()
    time.sleep(0.01)
    assert record.due == []


def test_a_clock_in_small_steps_ticks_once_a_period(simulated: ROSClock, ticker: Ticker, record: Record) -> None:
    ticker.start()
    for part in range(1, 41):
        move(simulated, 10 * PERIOD_NS + part * PERIOD_NS // 10)
        time.sleep(0.003)
    wait(lambda: len(record.due) >= 4)
    assert len(record.due) == 4


def test_a_clock_that_jumps_back_keeps_ticking(simulated: ROSClock, ticker: Ticker, record: Record) -> None:
    ticker.start()
    move(simulated, 11 * PERIOD_NS)
    wait(lambda: len(record.due) == 1)
    move(simulated, 2 * PERIOD_NS)
    wait(lambda: any(now == 2 * PERIOD_NS for now, _ in record.calls))
    move(simulated, 3 * PERIOD_NS)
    wait(lambda: record.due[-1] == 3 * PERIOD_NS)
