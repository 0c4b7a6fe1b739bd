"""A robot that is moved by deltas of its hand's pose: config/robots/libero.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openpi_runtime import paths
from openpi_runtime.chunk import ActionChunk
from openpi_runtime.executor import Executor, ExecutorRules, TickResult
from openpi_runtime.kinematics import EndEffectors, Kinematics, command_limits
from openpi_runtime.located_yaml import SpecError
from openpi_runtime.modes import Mode
from openpi_runtime.robots import POSE_AXES, RobotSpec, load_robot
from openpi_runtime.safety import Box, SafetyRules
from openpi_runtime.strategies import STRATEGIES, make_strategy

POSE = [-0.2, 0.01, 1.17, 3.1, 0.1, -0.1]
FINGERS = ["gripper0_finger_joint1", "gripper0_finger_joint2"]
OPEN, CLOSED = -1.0, 1.0


@pytest.fixture(scope="module")
def libero() -> RobotSpec:
    return load_robot("libero")


class Hand:
    """An executor for LIBERO and a clock; the pose stays where it is."""

    def __init__(self, spec: RobotSpec, strategy: str = "latest", rules: ExecutorRules | None = None) -> None:
        self.spec = spec
        kinematics = Kinematics.from_file(spec.urdf_path)
        limits, ends = command_limits(spec, kinematics), EndEffectors(spec, kinematics)
        self.executor = Executor(spec, limits, make_strategy(strategy), rules, ends)
        self.now_ns = 10**10

    def tick(self, ticks: int = 1, *, pose: bool = True, fingers: bool = True, clock: bool = True) -> TickResult:
        for _ in range(ticks):
            self.now_ns += self.spec.period_ns if clock else 0
            if pose:
                self.executor.on_joint_state("end_effector_pose", self.now_ns, POSE_AXES, POSE, self.now_ns)
            if fingers:
                self.executor.on_joint_state("joint_states", self.now_ns, FINGERS, [0.04, -0.04], self.now_ns)
            result = self.executor.tick(self.now_ns, self.now_ns)
        return result

    def send(self, action: list[float], steps: int = 10) -> str:
        chunk = ActionChunk(
            chunk_id=self.now_ns,
            stamp_ns=self.now_ns,
            period_ns=self.spec.period_ns,
            actions=np.tile(np.array(action), (steps, 1)),
            action_names=self.spec.action_names,
        )
        return self.executor.on_chunk(chunk, self.now_ns)

    def start(self, action: list[float]) -> TickResult:
        assert self.executor.run(True) == ""
        self.tick()
        assert self.send(action) == ""
        return self.tick()


@pytest.fixture
def hand(libero: RobotSpec) -> Hand:
    return Hand(libero)


MOVE = [1.0, -0.5, 0.25, 0.0, 0.1, -1.0, CLOSED]
STAND = [0.0] * 6 + [CLOSED]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_deltas_are_commanded_as_they_are_from_the_first_tick(libero: RobotSpec, strategy: str) -> None:
    hand = Hand(libero, strategy)
    for result in (hand.start(MOVE), hand.tick(), hand.tick()):
        assert result.mode is Mode.RUNNING, result.reason
        assert result.command == pytest.approx(MOVE)
    assert result.clamped_ticks == 0


def test_a_full_reversal_is_no_step_too_large(hand: Hand) -> None:
    hand.start([1.0] * 6 + [OPEN])
    hand.send([-1.0] * 6 + [CLOSED])
    result = hand.tick()
    assert result.command == pytest.approx([-1.0] * 6 + [CLOSED])
    assert result.clamped_ticks == 0


@pytest.mark.parametrize(("beyond", "clamped"), [(1.0, 0), (1.09, 1)])
def test_a_delta_slightly_beyond_one_is_clamped_and_counted(hand: Hand, beyond: float, clamped: int) -> None:
    result = hand.start([0.0, -beyond, 0.0, 0.0, 0.0, 0.0, OPEN])
    assert result.command is not None
    assert (result.command[1], result.clamped_ticks) == (-1.0, clamped)


def test_a_delta_far_beyond_one_holds_until_reset(hand: Hand) -> None:
    hand.start(MOVE)
    hand.send([1.2, *MOVE[1:]])
    result = hand.tick()
    assert (result.mode, result.reason) == (Mode.HOLD, "delta_x is beyond its limits by 0.200")
    assert result.command == pytest.approx(STAND)
    hand.send(MOVE)
    assert hand.tick().command == pytest.approx(STAND)


def test_a_chunk_that_ends_stops_the_hand_at_once_and_keeps_the_gripper(hand: Hand) -> None:
    hand.start(MOVE)
    hand.tick(8)
    result = hand.tick()
    assert (result.mode, result.reason) == (Mode.HOLD, "no chunk")
    assert result.command == pytest.approx(STAND)
    hand.send(MOVE)
    assert hand.tick().command == pytest.approx(MOVE)  # no ramp: nothing is far away


@pytest.mark.parametrize("stop", ["run", "estop"])
def test_idle_and_estop_tell_the_hand_to_stand(hand: Hand, stop: str) -> None:
    assert hand.tick().command is None  # never ran: the gripper is not ours yet
    hand.start(MOVE)
    if stop == "run":
        hand.executor.run(False)
    else:
        hand.executor.estop()
    result = hand.tick(3)
    assert result.mode is (Mode.IDLE if stop == "run" else Mode.ESTOP)
    assert result.command == pytest.approx(STAND)


def test_a_clock_that_stops_tells_the_hand_to_stand(hand: Hand) -> None:
    hand.start(MOVE)
    monotonic = hand.now_ns + 300_000_000
    assert hand.executor.watch(hand.now_ns, monotonic).command is None  # between two ticks the motion goes on
    result = hand.executor.watch(hand.now_ns, monotonic + 300_000_000)
    assert result.mode is Mode.HOLD
    assert result.command == pytest.approx(STAND)


@pytest.mark.parametrize(
    ("silent", "named"), [("pose", "end_effector_pose (x, y, z, rx, ry, rz)"), ("fingers", "joint_states (gripper)")]
)
def test_each_source_of_the_state_may_not_grow_old(hand: Hand, silent: str, named: str) -> None:
    hand.start(MOVE)
    assert hand.tick(4, **{silent: False}).mode is Mode.RUNNING
    result = hand.tick(**{silent: False})
    assert (result.mode, result.reason) == (Mode.HOLD, f"joint states: {named} older than 0.2 s")
    assert result.command == pytest.approx(STAND)


def test_a_workspace_cannot_be_promised(libero: RobotSpec) -> None:
    box = Box(lower=np.zeros(3), upper=np.ones(3))
    with pytest.raises(ValueError, match="moved by deltas"):
        Hand(libero, rules=ExecutorRules(safety=SafetyRules(workspace=box)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("joint: rz, kind: delta", "joint: rz", "'delta_rz' of kind 'absolute'; allowed: 'delta'"),
        ("group: arm, joint: gripper}", "group: arm, joint: gripper, kind: delta}", "'gripper' of kind 'delta'"),
        ("pose: end_effector_pose", "pose: /end_effector_pose", "relative topic name"),
        ("pose: end_effector_pose", "pose: hand\n    joints: [a]", "either 'joints' or 'pose'"),
        ("joint: gripper0_finger_joint2", "joint: finger", "allowed: x, y, z, rx, ry, rz, gripper, gripper0_finger"),
        (
            "joint: x, kind: delta",
            "joint: gripper0_finger_joint1, kind: delta",
            "allowed: x, y, z, rx, ry, rz, gripper",
        ),
    ],
)
def test_wrong_descriptions_of_deltas(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (paths.config_dir() / "robots/libero.yaml").read_text()
    assert text.count(old) == 1
    path = tmp_path / "robot.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(SpecError, match=message):
        load_robot(path)


def test_a_joint_that_is_called_like_a_coordinate_is_none(hand: Hand) -> None:
    hand.start(MOVE)
    for _ in range(6):
        hand.executor.on_joint_state("joint_states", hand.now_ns, POSE_AXES, POSE, hand.now_ns)
        result = hand.tick(pose=False)
    assert result.reason.startswith("joint states: end_effector_pose (x, y, z")
