"""The DROID stacks as users start them: a server of known velocities, and the expert that lifts cubes."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseArray
from openpi_msgs.msg import ActionChunk, ExecutorState
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from openpi.serving import published
from openpi_ros import qos, sim_messages
from openpi_ros.commander import PolicyCommander
from openpi_ros.conversions import chunk_from_message, time_ns
from openpi_runtime.robots import load_robot
from openpi_sim.franka.world import CUBES, LIFTED_M

ROBOT = load_robot("droid")
STUB = Path(__file__).with_name("stub_droid_server.py")
SENT = {
    "observation/exterior_image_1_left": [[224, 224, 3], "u", 1],
    "observation/wrist_image_left": [[224, 224, 3], "u", 1],
    "observation/joint_position": [[7], "f", 8],
    "observation/gripper_position": [[1], "f", 8],
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def stub_server(python: str, horizon: int, metadata: dict, note: Path) -> Iterator[int]:
    """The port of a stub server under that interpreter."""
    port = free_port()
    command = [python, str(STUB), str(port), str(horizon), json.dumps(metadata), str(note)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), f"the server ended with status {process.wait()}"
        yield port
    finally:
        process.kill()  # ended gently, it would first answer the stack, which goes on asking
        process.wait(10)
        process.stdout.close()


def published_python() -> str:
    try:
        return str(published.interpreter("openpi", published.OPENPI))
    except OSError as error:
        pytest.skip(str(error))


class Watch:
    """What a recorder beside the robot would see. Joint states by stamp [8]: seven joints, one finger."""

    def __init__(self, commander: PolicyCommander) -> None:
        self.joints: dict[int, np.ndarray] = {}
        self.chunks: dict[int, np.ndarray] = {}
        self.commands: list[np.ndarray] = []
        self.states: list[ExecutorState] = []
        (group,) = ROBOT.groups
        self._names = [*group.joints, "panda_finger_joint1"]
        topic = group.controllers["joint_trajectory"]["topic"]
        for kind, name, callback, profile in (
            (JointState, group.joint_states, self._on_joints, qos.SENSOR),
            (ActionChunk, "openpi_policy_node/action_chunk", self._on_chunk, qos.CHUNK),
            (JointTrajectory, topic, self._on_command, qos.COMMAND),
            (ExecutorState, "chunk_executor_node/state", self.states.append, qos.STATE),
        ):
            commander.node.create_subscription(kind, name, callback, profile)

    def _on_joints(self, message: JointState) -> None:
        named = dict(zip(message.name, message.position, strict=True))
        self.joints[time_ns(message.header.stamp)] = np.array([named[name] for name in self._names])

    def _on_chunk(self, message: ActionChunk) -> None:
        self.chunks[message.chunk_id] = chunk_from_message(message).actions

    def _on_command(self, message: JointTrajectory) -> None:
        (point,) = message.points
        assert list(message.joint_names) == [*ROBOT.groups[0].joints, "gripper"]
        self.commands.append(np.array(point.positions))

    def running(self) -> list[ExecutorState]:
        """Reports of ticks that executed a step of a chunk seen here."""
        return [s for s in self.states if s.mode == ExecutorState.RUNNING and s.chunk_id in self.chunks]

    def predictions(self, state: ExecutorState) -> list[np.ndarray]:
        """q + 0.2 v by the convention, written out here; the state of the tick's time may have come after it."""
        velocity = self.chunks[state.chunk_id][state.next_step - 1][:7]
        velocity = velocity / max(1.0, np.abs(velocity).max())
        tick = time_ns(state.header.stamp)
        return [self.joints[at][:7] + 0.2 * velocity for at in (tick, tick - ROBOT.period_ns) if at in self.joints]


def errors(watch: Watch) -> tuple[np.ndarray, np.ndarray]:
    """For each tick: how far the nearest command is from the prediction, and the arm from it a period later (rad)."""
    commands = np.array([command[:7] for command in watch.commands])
    off, behind = [], []
    for state in watch.running():
        nearest = [(np.abs(commands - p).max(axis=1).min(), p) for p in watch.predictions(state)]
        later = watch.joints.get(time_ns(state.header.stamp) + ROBOT.period_ns)
        if nearest and later is not None:
            error, prediction = min(nearest, key=lambda pair: pair[0])
            off.append(error)
            behind.append(np.abs(later[:7] - prediction).max())
    return np.array(off), np.array(behind)


@pytest.mark.parametrize(("server", "horizon"), [("ours", 15), ("published", 10)])
def test_the_arm_moves_as_the_convention_says(start, domain, monkeypatch, tmp_path, server, horizon):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    python = sys.executable if server == "ours" else published_python()
    metadata = {"action_dim": 8, "action_horizon": horizon} if server == "ours" else {}
    with stub_server(python, horizon, metadata, tmp_path / "observation.json") as port:
        stack = start("openpi_bringup.up", "droid_remote", "sim:=true", f"port:={port}")
        stack.wait_for_text("Ready: backend remote", 90)
        with PolicyCommander(use_sim_time=True) as commander:
            watch = Watch(commander)
            commander.bring_up()
            commander.start()
            commander.wait_for(lambda: len(watch.running()) >= 75, 60.0, "five seconds of motion")
            commander.stop()
    sent = json.loads((tmp_path / "observation.json").read_text())
    assert sent.pop("prompt")[0] == []
    assert sent == SENT
    assert {chunk.shape for chunk in watch.chunks.values()} == {(horizon, 8)}
    off, behind = errors(watch)
    assert len(off) >= 60
    assert off.max() < 1e-6
    assert behind.max() < 0.02
    travelled = np.ptp(np.array(list(watch.joints.values())), axis=0)
    assert (travelled[:7] > 0.05).all()
    assert watch.commands[-1][7] == 1.0  # 0.9, binarised
    assert watch.joints[max(watch.joints)][7] < 0.002  # closed
    assert max(s.clamped_ticks for s in watch.running()) == 0


def test_a_server_for_another_robot_is_refused_by_a_sentence(start, domain, monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    with stub_server(sys.executable, 10, {"action_dim": 14}, tmp_path / "observation.json") as port:
        stack = start("openpi_bringup.up", "droid_remote", f"port:={port}")
        with PolicyCommander(use_sim_time=True) as commander:
            commander.bring_up()
            commander.start()
            stack.wait_for_text("has action_dim 14, but robot droid has 8", 60)
            assert commander.state.mode == ExecutorState.HOLD


class Lifts:
    """Lets the expert of a running stack lift cubes."""

    def __init__(self, commander: PolicyCommander) -> None:
        self._commander = commander
        self._places: dict[str, np.ndarray] = {}
        commander.node.create_subscription(PoseArray, "sim/objects", self._on_objects, qos.STATE)
        commander.bring_up()

    def _on_objects(self, message: PoseArray) -> None:
        self._places = dict(zip(CUBES, sim_messages.objects(message), strict=True))

    def lift(self, seed: int) -> bool:
        """Whether the cube of the prompt, another colour for each seed, is in the air, and the others are not."""
        colour = list(CUBES)[seed % len(CUBES)]
        self._commander.reset_simulation(seed, "franka_sim_node")
        self._commander.set_prompt(f"pick up the {colour} cube")
        self._places.clear()
        self._commander.run_for(8.0, until=lambda: bool(self._places) and self._places[colour][2] > LIFTED_M)
        lifted = {name for name, pose in self._places.items() if pose[2] > LIFTED_M}
        return lifted == {colour}


@pytest.fixture
def lifts(start, domain, monkeypatch) -> Iterator[Lifts]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    stack = start("openpi_bringup.up", "droid", "policy:=expert")
    stack.wait_for_text("Ready: backend expert", 90)
    with PolicyCommander(use_sim_time=True) as commander:
        yield Lifts(commander)


def test_the_expert_lifts_the_cube_of_the_prompt(lifts):
    assert lifts.lift(2)


@pytest.mark.long
def test_the_expert_lifts_nine_of_ten(lifts):
    outcomes = [lifts.lift(seed) for seed in range(10)]
    print(outcomes)
    assert sum(outcomes) >= 9
