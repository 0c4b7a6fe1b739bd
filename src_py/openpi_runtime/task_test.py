import pytest

from openpi_runtime.modes import Mode
from openpi_runtime.task import TIME_LIMIT, TaskRules, TaskWatch

SECOND = 1_000_000_000


@pytest.fixture
def watch():
    return TaskWatch(TaskRules(time_limit_ns=10 * SECOND, hold_timeout_ns=2 * SECOND), start_ns=100 * SECOND)


def test_a_running_task_ends_at_its_time_limit_and_counts_its_steps(watch):
    for tick in range(9):
        assert watch.on_state((101 + tick) * SECOND, Mode.RUNNING, "") == ""
    assert watch.on_state(110 * SECOND, Mode.RUNNING, "") == TIME_LIMIT
    assert watch.steps == 10


def test_a_short_hold_is_no_end_a_long_one_is(watch):
    assert watch.on_state(101 * SECOND, Mode.RUNNING, "") == ""
    assert watch.on_state(102 * SECOND, Mode.HOLD, "no chunk") == ""
    assert watch.on_state(103 * SECOND, Mode.HOLD, "no chunk") == ""
    assert watch.on_state(104 * SECOND, Mode.HOLD, "no chunk") == "HOLD: no chunk"


@pytest.mark.parametrize("jump", [3600, -90])
def test_a_jump_of_the_clock_is_no_time_that_the_task_took(watch, jump):
    assert watch.on_state(101 * SECOND, Mode.RUNNING, "") == ""
    assert watch.on_state((101 + jump) * SECOND, Mode.HOLD, "the clock jumped") == ""
    assert watch.look((102 + jump) * SECOND) == ""
    assert watch.look((103 + jump) * SECOND) == ""
    assert watch.look((104 + jump) * SECOND) == "HOLD: the clock jumped"


def test_an_emergency_stop_ends_at_once(watch):
    assert watch.on_state(101 * SECOND, Mode.ESTOP, "emergency stop") == "ESTOP: emergency stop"


def test_a_silent_executor_is_a_fault(watch):
    assert watch.look(101 * SECOND) == ""
    assert watch.look(102 * SECOND) == ""
    assert watch.look(103 * SECOND) == "the executor reported nothing"


def test_without_a_limit_a_task_runs_on():
    watch = TaskWatch(TaskRules(), start_ns=0)
    assert watch.on_state(1000 * SECOND, Mode.RUNNING, "") == ""
