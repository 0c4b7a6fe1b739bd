from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi_msgs.msg import ExecutorState

from openpi_ros import sim_messages
from openpi_ros.backends.base import BackendError
from openpi_ros.backends.expert import ExpertBackend
from openpi_ros.conversions import to_time
from openpi_runtime.conventions import ActionConvention
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

    def episode(self, start_ns: int, poses: Sequence[np.ndarray] = (CUBE,)) -> None:
        self.callbacks["sim/episode_start"](to_time(start_ns))
        self.callbacks["sim/objects"](sim_messages.poses(poses, start_ns + 1, "world"))

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
    return backend.infer({"stamp_ns": step * PERIOD_NS, "measured": np.zeros(14), "prompt": "go"})["actions"]


def test_chunks_of_a_run_are_the_parts_of_one_plan(topics, backend, plan):
    topics.episode(0)
    np.testing.assert_array_equal(_actions(backend, 10), plan[:50])
    topics.state(ExecutorState.RUNNING, 11 * PERIOD_NS)
    np.testing.assert_array_equal(_actions(backend, 35), plan[25:75])
    np.testing.assert_array_equal(_actions(backend, 10 + len(plan)), np.tile(plan[-1], (50, 1)))


def test_the_plan_waits_until_the_executor_runs(topics, backend, plan):
    topics.episode(0)
    _actions(backend, 10)
    topics.state(ExecutorState.HOLD, 40 * PERIOD_NS)
    np.testing.assert_array_equal(_actions(backend, 50), plan[:50])


def test_a_new_episode_is_a_new_plan(topics, backend, plan):
    topics.episode(0)
    _actions(backend, 10)
    topics.state(ExecutorState.RUNNING, 11 * PERIOD_NS)
    topics.episode(250 * PERIOD_NS)
    np.testing.assert_array_equal(_actions(backend, 300), plan[:50])


def test_what_is_left_of_the_episode_before_is_not_planned_from(topics, backend):
    topics.episode(100 * PERIOD_NS)
    with pytest.raises(BackendError, match="only just begun"):
        _actions(backend, 100)
    topics.callbacks["sim/objects"](sim_messages.poses([CUBE], 100 * PERIOD_NS, "world"))
    with pytest.raises(BackendError, match="only just begun"):
        _actions(backend, 101)


def test_without_a_simulator_it_says_what_it_needs(topics, backend):
    with pytest.raises(BackendError, match="sim/objects"):
        _actions(backend, 0)
    topics.callbacks["sim/episode_start"](to_time(0))
    with pytest.raises(BackendError, match="sim/objects"):
        _actions(backend, 1)


class Lift:
    """The expert for the Panda, asked at 15 Hz."""

    def __init__(self, topics: Topics) -> None:
        self.robot = load_robot("droid")
        self.backend = ExpertBackend(topics, {"horizon": 15}, self.robot)
        self.convention = ActionConvention(self.robot)
        self.places = {"red": [0.5, 0.1], "green": [0.45, -0.1], "blue": [0.55, 0.0]}
        poses = [np.array([x, y, 0.02, 1.0, 0.0, 0.0, 0.0]) for x, y in self.places.values()]
        topics.episode(0, poses)

    def chunk(self, step: int, state: np.ndarray, prompt: str = "lift the blue cube") -> np.ndarray:
        obs = {"stamp_ns": step * self.robot.period_ns, "measured": state, "prompt": prompt}
        return self.backend.infer(obs)["actions"]


@pytest.fixture
def lift(topics: Topics) -> Lift:
    return Lift(topics)


def test_chunks_of_velocities_lead_along_one_plan_also_for_an_arm_that_is_off_it(topics, lift):
    rest = np.array(lift.robot.rest)
    whole = lift.convention.path(lift.chunk(10, rest), rest)
    topics.state(ExecutorState.RUNNING, 11 * lift.robot.period_ns)
    aside = whole[7] + np.append(np.full(7, 0.01), 0.0)
    later = lift.convention.path(lift.chunk(18, aside), aside)
    np.testing.assert_allclose(later[5:7], whole[13:15], atol=1e-9)
    assert np.abs(later[0, :7] - whole[8, :7]).max() < 0.01


def test_an_arm_that_was_held_up_goes_on_from_where_it_is(topics, lift):
    rest = np.array(lift.robot.rest)
    whole = lift.convention.path(lift.chunk(10, rest), rest)
    topics.state(ExecutorState.RUNNING, 11 * lift.robot.period_ns)
    for step in (18, 20):  # both times where it was to be at step 14
        later = lift.convention.path(lift.chunk(step, whole[3]), whole[3])
        np.testing.assert_allclose(later[:8, :7], whole[4:12, :7], atol=1e-3)


def test_another_prompt_is_another_plan_from_where_the_arm_is(topics, lift):
    state = np.array(lift.robot.rest)
    lift.chunk(10, state)
    topics.state(ExecutorState.RUNNING, 11 * lift.robot.period_ns)
    first = lift.chunk(20, state, "lift the red cube")
    again = lift.chunk(20, state, "lift the red cube")
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0]).max() < 0.1  # at rest, not in the middle of the other plan


def test_a_prompt_without_a_cube_is_told(lift):
    with pytest.raises(BackendError, match="must name one of the cubes red, green, blue"):
        lift.chunk(10, np.array(lift.robot.rest), "wave")
