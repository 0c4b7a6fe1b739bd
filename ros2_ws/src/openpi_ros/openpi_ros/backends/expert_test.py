from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi_msgs.msg import ExecutorState
from std_msgs.msg import UInt32

from openpi_ros import sim_messages
from openpi_ros.backends.base import BackendError
from openpi_ros.backends.expert import ExpertBackend
from openpi_ros.conversions import to_time
from openpi_runtime.robots import load_robot
from openpi_sim.aloha.expert import Expert

PERIOD_NS = 20_000_000
CUBE = np.array([0.1, 0.5, 0.02, 1.0, 0.0, 0.0, 0.0])


class Topics:
    """Stands for the policy node: keeps what the backend subscribes to."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def create_subscription(self, _: type, topic: str, callback: Callable[[Any], None], __: object) -> None:
        self.callbacks[topic] = callback

    def episode(self, number: int) -> None:
        self.callbacks["sim/episode"](UInt32(data=number))
        self.callbacks["sim/objects"](sim_messages.poses([CUBE], 0))

    def state(self, mode: int, time_ns: int) -> None:
        message = ExecutorState(mode=mode)
        message.header.stamp = to_time(time_ns)
        self.callbacks["chunk_executor_node/state"](message)


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def backend(topics: Topics) -> ExpertBackend:
    return ExpertBackend(topics, {"horizon": 50}, load_robot("aloha"))


@pytest.fixture(scope="module")
def plan() -> np.ndarray:
    return Expert().plan({"box": CUBE})


def _actions(backend: ExpertBackend, step: int) -> np.ndarray:
    return backend.infer({"stamp_ns": step * PERIOD_NS})["actions"]


def test_chunks_of_a_run_are_the_parts_of_one_plan(topics, backend, plan):
    topics.episode(1)
    np.testing.assert_array_equal(_actions(backend, 10), plan[:50])
    topics.state(ExecutorState.RUNNING, 11 * PERIOD_NS)
    np.testing.assert_array_equal(_actions(backend, 35), plan[25:75])
    np.testing.assert_array_equal(_actions(backend, 10 + len(plan)), np.tile(plan[-1], (50, 1)))


def test_the_plan_waits_until_the_executor_runs(topics, backend, plan):
    topics.episode(1)
    _actions(backend, 10)
    topics.state(ExecutorState.HOLD, 40 * PERIOD_NS)
    np.testing.assert_array_equal(_actions(backend, 50), plan[:50])


def test_a_new_episode_is_a_new_plan(topics, backend, plan):
    topics.episode(1)
    _actions(backend, 10)
    topics.state(ExecutorState.RUNNING, 11 * PERIOD_NS)
    topics.episode(2)
    np.testing.assert_array_equal(_actions(backend, 300), plan[:50])


def test_without_a_simulator_it_says_what_it_needs(topics, backend):
    with pytest.raises(BackendError, match="sim/objects"):
        _actions(backend, 0)
    topics.callbacks["sim/episode"](UInt32(data=1))
    with pytest.raises(BackendError, match="sim/objects"):
        _actions(backend, 1)
