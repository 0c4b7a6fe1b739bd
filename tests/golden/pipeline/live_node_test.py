"""The running policy node against the same vectors as the files: sensor messages in, chunk message out."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import rclpy
from openpi_msgs.msg import ActionChunk, ExecutorState
from policy_cases import FLOAT32_BOUND, action_units, load_case, train_config
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensors import Sensors

from openpi import transforms
from openpi.models.model import ModelType
from openpi.policies import droid_policy, libero_policy
from openpi_ros import lifecycle, qos
from openpi_ros.conversions import chunk_from_message
from openpi_ros.openpi_policy_node import PolicyNode
from openpi_ros.recording import load_record
from openpi_runtime.robots import load_robot

pytestmark = pytest.mark.ros
ROUNDING = 1e-12  # of a pose as a quaternion, a gripper as a finger's position
FLOAT32 = 2e-7  # relative, of the chunk message


@pytest.fixture
def ask(tmp_path) -> Iterator[Callable[..., tuple[np.ndarray, dict[str, Any]]]]:
    """ask(robot, observation, **parameters): the first chunk [h, d] of a node, and what its policy was sent."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=random.randint(1, 100))
    executor = SingleThreadedExecutor(context=context)
    nodes = []

    def first_chunk(robot: str, observation: dict[str, Any], **parameters: Any) -> tuple[np.ndarray, dict[str, Any]]:
        values = {"robot": robot, "record": str(tmp_path), "prompt": observation["prompt"]} | parameters
        node = PolicyNode(
            context=context, parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]
        )
        peer = rclpy.create_node("peer", context=context)
        nodes.extend([node, peer])
        executor.add_node(node)
        executor.add_node(peer)
        chunks: list[ActionChunk] = []
        peer.create_subscription(ActionChunk, "openpi_policy_node/action_chunk", chunks.append, qos.CHUNK)
        state = peer.create_publisher(ExecutorState, "chunk_executor_node/state", qos.STATE)
        peer.create_timer(0.1, lambda: state.publish(ExecutorState(mode=ExecutorState.RUNNING)))
        Sensors(peer, load_robot(robot), observation)
        assert lifecycle.bring_up(node), node.failure
        end = time.monotonic() + 120
        while not chunks:
            assert time.monotonic() < end, f"no chunk: {node.failure}"
            executor.spin_once(timeout_sec=0.1)
        chunk = chunk_from_message(chunks[0])
        return chunk.actions, load_record(tmp_path / f"{chunk.chunk_id:06d}.npz")["obs"]

    yield first_chunk
    for node in nodes:
        node.destroy_node()
    executor.shutdown()
    rclpy.try_shutdown(context=context)


def libero_observation(vectors: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "observation/image": vectors["in/base"],
        "observation/wrist_image": vectors["in/wrist"],
        "observation/state": vectors["in/libero_state"],
        "prompt": "hello",
    }


def droid_observation(vectors: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "observation/exterior_image_1_left": vectors["in/base"],
        "observation/wrist_image_left": vectors["in/wrist"],
        "observation/joint_position": vectors["in/joint_position"],
        "observation/gripper_position": vectors["in/gripper_position"],
        "prompt": "hello",
    }


ROBOTS = {
    "droid": (droid_observation, droid_policy.DroidInputs),
    "libero": (libero_observation, libero_policy.LiberoInputs),
}


@pytest.mark.parametrize("robot", ROBOTS)
def test_what_the_transforms_make_of_messages_is_what_they_make_of_the_files(robot, ask, golden):
    vectors = dict(np.load(golden("transforms/droid_libero.npz")))
    observation, inputs = ROBOTS[robot]
    _, sent = ask(robot, observation(vectors), backend="hold")
    for model_type in ModelType:
        result = transforms.flatten_dict(inputs(model_type)(dict(sent)))
        prefix = f"out/{robot}/{model_type.value}/"
        expected = {key.removeprefix(prefix): value for key, value in vectors.items() if key.startswith(prefix)}
        assert {"state", "image_mask/base_0_rgb"} <= set(expected)
        assert result["prompt"] == "hello"
        for name in expected.keys() - {"actions"}:  # those are for training
            actual = np.asarray(result[name])
            assert actual.dtype == expected[name].dtype, name
            np.testing.assert_allclose(actual, expected[name], rtol=0, atol=ROUNDING, err_msg=name)


@pytest.mark.usefixtures("tokenizer_in_data_home")
def test_a_live_libero_chunk_is_the_reference_ones(ask, golden, fast_folder, monkeypatch):
    """From camera images, a pose and joint states to the chunk message, from the noise the vectors started from."""
    case = load_case(golden("policy/libero_pi0"))
    config = train_config(case, "float32", fast_folder)
    monkeypatch.setattr("openpi.training.config.get_config", lambda name: config)

    class Noise:
        def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            assert shape == case.noise.shape
            return case.noise.astype(dtype)

    monkeypatch.setattr("openpi_ros.backends.local.np.random.default_rng", lambda seed: Noise())
    checkpoint = str(case.folder / "checkpoint")
    actions, sent = ask("libero", case.observation, backend="local", config="golden", checkpoint=checkpoint)
    for name in ("observation/image", "observation/wrist_image", "prompt"):
        np.testing.assert_array_equal(sent[name], case.observation[name])
    state = case.observation["observation/state"]
    np.testing.assert_allclose(sent["observation/state"], state, rtol=0, atol=ROUNDING)
    expected = case.outputs["actions_f32"]
    assert actions.shape == expected.shape
    error = np.abs(actions - expected) - FLOAT32 * np.abs(expected)
    assert (error / action_units(case)).max() <= FLOAT32_BOUND
