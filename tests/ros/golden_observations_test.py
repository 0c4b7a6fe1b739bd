"""Golden vectors through the live node: messages in, and what a policy is sent equals what the files say."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from openpi_msgs.msg import ActionChunk, ExecutorState
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState

from openpi import transforms
from openpi.models.model import ModelType
from openpi.policies import droid_policy, libero_policy
from openpi_ros import lifecycle, openpi_policy_node, qos
from openpi_ros.backends.base import for_policy
from openpi_ros.conversions import chunk_from_message, image_message, joint_state_message, to_time
from openpi_runtime.robots import RobotSpec, load_robot

GOLDEN = Path(__file__).parents[1] / "golden/public"
INPUTS = {"droid": droid_policy.DroidInputs, "libero": libero_policy.LiberoInputs}
OUTPUTS = {"droid": droid_policy.DroidOutputs, "libero": libero_policy.LiberoOutputs}


class Catcher:
    """A backend that keeps what it receives and answers with the robot's transform of golden model actions."""

    uses_images = True

    def __init__(self, robot: str, model_actions: np.ndarray) -> None:
        self.metadata: dict[str, Any] = {}
        self.received: list[dict[str, Any]] = []
        self._answer = OUTPUTS[robot]()({"actions": model_actions})

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        self.received.append(for_policy(obs))
        return self._answer

    def close(self) -> None:
        pass


class Bench:
    """The policy node of a robot in this process, and a peer that publishes one unchanging scene."""

    def __init__(self, robot: RobotSpec, backend: Catcher, scene: dict[str, Any]) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=random.randint(1, 100))
        self._robot, self._scene = robot, scene
        overrides = [Parameter("robot", value=robot.name), Parameter("prompt", value="hello")]
        self.node = openpi_policy_node.PolicyNode(context=self.context, parameter_overrides=overrides)
        self.peer = rclpy.create_node("peer", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._executor.add_node(self.peer)
        self._backend = backend
        self.chunks: list[ActionChunk] = []
        self.peer.create_subscription(ActionChunk, "openpi_policy_node/action_chunk", self.chunks.append, qos.CHUNK)
        (group,) = robot.groups
        self._joints = self.peer.create_publisher(JointState, group.joint_states, qos.SENSOR)
        self._pose = self.peer.create_publisher(PoseStamped, group.pose, qos.SENSOR) if group.pose else None
        self._images = {c.name: self.peer.create_publisher(Image, c.topic, qos.SENSOR) for c in robot.cameras}
        self._state = self.peer.create_publisher(ExecutorState, "chunk_executor_node/state", qos.STATE)
        self.peer.create_timer(0.05, self._publish)

    def run(self) -> None:
        """Until a chunk has come."""
        assert lifecycle.bring_up(self.node), self.node.failure
        end = time.monotonic() + 60
        while not self.chunks:
            assert time.monotonic() < end, self.node._diagnose()
            self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        self.node.trigger_shutdown()
        self._executor.shutdown()
        self.node.destroy_node()
        self.peer.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def _publish(self) -> None:
        now_ns = self.peer.get_clock().now().nanoseconds
        self._state.publish(ExecutorState(mode=ExecutorState.RUNNING))
        joints = dict(reversed(self._scene["joints"].items()))  # no driver owes anybody an order
        self._joints.publish(joint_state_message(joints, now_ns))
        if self._pose is not None:
            self._pose.publish(pose_message(self._scene["hand"], now_ns))
        for name, publisher in self._images.items():
            publisher.publish(image_message(self._scene[name], now_ns, "camera"))


def pose_message(hand: np.ndarray, stamp_ns: int) -> PoseStamped:
    """Position and axis-angle as a pose."""
    angle = float(np.linalg.norm(hand[3:]))
    message = PoseStamped()
    message.header.stamp = to_time(stamp_ns)
    message.pose.position.x, message.pose.position.y, message.pose.position.z = hand[:3].tolist()
    turn = message.pose.orientation
    turn.x, turn.y, turn.z = (hand[3:] / angle * np.sin(angle / 2)).tolist()
    turn.w = float(np.cos(angle / 2))
    return message


def droid_scene(robot: RobotSpec, joints: np.ndarray, gripper: float) -> dict[str, Any]:
    """What the Panda's drivers report: the gripper by the place of a finger."""
    (group,) = robot.groups
    assert group.gripper is not None
    finger = group.gripper.calibration.position.at(robot.gripper_convention.fraction(gripper))
    named = dict(zip(group.joints, joints, strict=True)) | {group.gripper.state_joint: finger}
    return {"joints": named}


@pytest.fixture
def through_the_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    benches: list[Bench] = []

    def run(robot: RobotSpec, scene: dict[str, Any], model_actions: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        """What the backend received, and the actions that the node published."""
        backend = Catcher(robot.name, model_actions)
        monkeypatch.setattr(openpi_policy_node, "make_backend", lambda *_: backend)
        benches.append(Bench(robot, backend, scene))
        benches[-1].run()
        return backend.received[0], chunk_from_message(benches[-1].chunks[0]).actions

    yield run
    for bench in benches:
        bench.close()


def check(robot: str, received: dict[str, Any], actions: np.ndarray, golden: dict[str, np.ndarray]) -> None:
    for model_type in ModelType:
        inputs = transforms.flatten_dict(INPUTS[robot](model_type)(received))
        assert inputs["prompt"] == "hello"
        prefix = f"out/{robot}/{model_type.value}/"
        expected = {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}
        assert expected
        for name, value in expected.items():
            if name == "actions":  # of training
                continue
            assert np.asarray(inputs[name]).dtype == value.dtype, name
            np.testing.assert_allclose(inputs[name], value, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(actions, golden[f"out/{robot}_outputs"], atol=1e-7)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "transforms/droid_libero.npz") as file:
        return dict(file)


def test_droid_transforms_are_fed_as_by_the_golden_files(through_the_node, golden):
    robot = load_robot("droid")
    scene = droid_scene(robot, golden["in/joint_position"], float(golden["in/gripper_position"][0]))
    scene |= {"exterior": golden["in/base"], "wrist": golden["in/wrist"]}
    check("droid", *through_the_node(robot, scene, golden["in/model_actions"]), golden)


def test_libero_transforms_are_fed_as_by_the_golden_files(through_the_node, golden):
    robot, state = load_robot("libero"), golden["in/libero_state"]
    scene = {
        "joints": dict(zip(robot.groups[0].sensed, state[6:], strict=True)),
        "hand": state[:6],
        "agentview": golden["in/base"],
        "eye_in_hand": golden["in/wrist"],
    }
    check("libero", *through_the_node(robot, scene, golden["in/model_actions"]), golden)


def test_a_policy_gets_the_very_observation_of_the_golden_policy(through_the_node):
    with np.load(GOLDEN / "policy/droid_pi0_fast/raw_obs.npz") as file:
        raw = dict(file)
    robot = load_robot("droid")
    scene = droid_scene(robot, raw["observation/joint_position"], float(raw["observation/gripper_position"][0]))
    scene |= {"exterior": raw[droid_policy.EXTERIOR_CAMERA], "wrist": raw[droid_policy.WRIST_CAMERA]}
    received, _ = through_the_node(robot, scene, np.zeros((10, 8), np.float32))
    assert received.keys() == (raw.keys() - {"noise"}) | {"prompt"}
    for name, value in received.items():
        if name != "prompt":
            assert value.dtype == raw[name].dtype, name
            np.testing.assert_allclose(value, raw[name], atol=1e-12, err_msg=name)
