from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi.serving.background import running
from openpi.serving.websocket_policy_server import WebsocketPolicyServer
from openpi_ros.backends.base import MEASURED, STAMP, BackendError
from openpi_ros.backends.remote import RemoteBackend
from openpi_runtime.robots import load_robot

DROID = load_robot("droid")


class Stub:
    """A policy of chunks of `horizon` steps that keeps what it was sent."""

    def __init__(self, horizon: int = 10) -> None:
        self.horizon = horizon
        self.received: list[dict[str, Any]] = []

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        self.received.append(obs)
        return {"actions": np.zeros((self.horizon, 8), np.float32)}


class Node:
    """Stands for the policy node."""

    def get_logger(self) -> Any:
        return self

    def info(self, _: str) -> None:
        pass


def ask(policy: Stub, metadata: dict[str, Any]) -> dict[str, Any]:
    pictures = {camera.name: np.full((480, 640, 3), 200, np.uint8) for camera in DROID.cameras}
    obs = DROID.observation.observation(np.array(DROID.rest), pictures, "lift") | {STAMP: 1, MEASURED: np.zeros(8)}
    with running(WebsocketPolicyServer(policy, "127.0.0.1", 0, metadata)) as server:
        params = {"host": "127.0.0.1", "port": server.port, "request_timeout": 10.0}
        backend = RemoteBackend(Node(), params, DROID)  # type: ignore[arg-type]
        try:
            return backend.infer(obs)
        finally:
            backend.close()


@pytest.mark.parametrize("horizon", [10, 15])
def test_a_droid_policy_is_sent_what_it_knows_and_says_how_long_its_chunks_are(horizon: int) -> None:
    policy = Stub(horizon)
    assert ask(policy, {"action_dim": 8, "action_horizon": horizon})["actions"].shape == (horizon, 8)
    (received,) = policy.received
    assert {key: np.shape(value) for key, value in received.items()} == {
        "observation/exterior_image_1_left": (224, 224, 3),
        "observation/wrist_image_left": (224, 224, 3),
        "observation/joint_position": (7,),
        "observation/gripper_position": (1,),
        "prompt": (),
    }
    image = received["observation/wrist_image_left"]
    assert image.dtype == np.uint8
    assert (image[112] == 200).all()
    assert (image[0] == 0).all()  # 4:3 is padded above and below


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"action_dim": 14}, "has action_dim 14, but robot droid has 8"),
        ({"rate_hz": 50.0}, "has rate_hz 50.0, but robot droid has 15"),
        ({"cameras": ["cam_high"]}, r"has cameras \['cam_high'\], but robot droid has \['exterior', 'wrist'\]"),
    ],
)
def test_a_server_for_another_robot_is_refused(metadata: dict[str, Any], told: str) -> None:
    policy = Stub()
    with pytest.raises(BackendError, match=told):
        ask(policy, metadata)
    assert not policy.received
