import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi import codecs
from openpi.serving import examples, sessions
from openpi.serving.background import running
from openpi.serving.sessions_test import serving
from openpi.serving.websocket_policy_server import ServerOptions, WebsocketPolicyServer
from openpi.training.config import get_config
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
    obs = observation()
    with running(WebsocketPolicyServer(policy, "127.0.0.1", 0, metadata)) as server:
        return infer(server.port, obs, protocol="policy")


def infer(port: int | None, obs: dict[str, Any], **params: Any) -> dict[str, Any]:
    place = {"host": "127.0.0.1", "port": port, "request_timeout": 10.0}
    backend = RemoteBackend(Node(), place | params, DROID)  # type: ignore[arg-type]
    try:
        return backend.infer(obs)
    finally:
        backend.close()


def observation() -> dict[str, Any]:
    pictures = {camera.name: np.full((480, 640, 3), 200, np.uint8) for camera in DROID.cameras}
    state = np.array(DROID.rest)
    return DROID.observation.observation(state, pictures, "lift") | {STAMP: 1, MEASURED: state}


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


@pytest.mark.parametrize("breaks", [False, True])
def test_a_server_that_comes_back_for_another_robot_is_refused(breaks: bool) -> None:
    class Other(Stub):
        def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
            return super().infer({"state": obs["state"]} if breaks else obs)

    with running(WebsocketPolicyServer(Stub(), "127.0.0.1", 0, {"rate_hz": 15})) as first:
        params = {"host": "127.0.0.1", "port": first.port, "request_timeout": 10.0, "protocol": "policy"}
        backend = RemoteBackend(Node(), params, DROID)  # type: ignore[arg-type]
        assert backend.infer(observation())["actions"].shape == (10, 8)
    other = WebsocketPolicyServer(Other(), "127.0.0.1", first.port, {"rate_hz": 50})
    with running(other), pytest.raises(BackendError, match="has rate_hz 50, but robot droid has 15"):
        backend.infer(observation())
    with running(WebsocketPolicyServer(Stub(), "127.0.0.1", first.port, {"rate_hz": 15})):
        assert backend.infer(observation())["actions"].shape == (10, 8)
    backend.close()


@pytest.mark.parametrize(("config", "fits"), [("pi0_droid_small", True), ("pi0_aloha_sim_small", False)])
def test_what_our_server_says_of_its_config_is_enough_to_refuse_it(config: str, fits: bool) -> None:
    metadata = examples.facts_for(get_config(config))
    if fits:
        assert ask(Stub(), metadata)["actions"].shape == (10, 8)
    else:
        with pytest.raises(BackendError, match="has action_dim 14, but robot droid has 8"):
            ask(Stub(), metadata)


def test_a_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1000" / "params").mkdir(parents=True)
    guarded = WebsocketPolicyServer(Stub(), "127.0.0.1", 0, {}, options=ServerOptions(api_keys=["secret"]))
    served = serving(tmp_path, lambda _: Stub(), codec=codecs.get("droid"), api_keys=["secret"])
    with running(guarded), served as port:
        servers: list[dict[str, Any]] = [
            {"protocol": "policy", "port": guarded.port},
            {"protocol": "session", "port": port, "checkpoint": "1000"},
        ]
        for server in servers:
            monkeypatch.delenv("OPENPI_API_KEY", raising=False)
            with pytest.raises(BackendError, match="refuses this client"):
                infer(obs=observation(), **server)
            monkeypatch.setenv("OPENPI_API_KEY", "secret")
            assert infer(obs=observation(), **server)["actions"].shape == (10, 8)


def ask_session(folder: Path, codec: str, policy: Stub) -> dict[str, Any]:
    (folder / "1000" / "params").mkdir(parents=True)
    with serving(folder, lambda _: policy, codec=codecs.get(codec)) as port:
        return infer(port, observation(), protocol="session", checkpoint="1000")


def test_a_session_of_droid_answers_in_the_robots_actions(tmp_path: Path) -> None:
    policy = Stub()
    actions = ask_session(tmp_path, "droid", policy)["actions"]
    np.testing.assert_allclose(actions, np.zeros((10, 8)), atol=1e-6)  # no velocity; the gripper open
    (received,) = policy.received
    np.testing.assert_allclose(received["observation/joint_position"], DROID.rest[:7], rtol=1e-6)
    assert received["observation/wrist_image_left"].shape == (224, 224, 3)
    assert received["prompt"] == "lift"


def test_a_session_with_absolute_joints_answers_in_the_robots_actions(tmp_path: Path) -> None:
    policy = Stub()
    targets = [*(np.array(DROID.rest[:7]) + 0.1), 1.0]
    policy.infer = lambda _: {"actions": np.tile(targets, (10, 1))}  # type: ignore[method-assign]
    actions = ask_session(tmp_path, "joints_traj", policy)["actions"]
    np.testing.assert_allclose(actions[:, :7], [[0.5] * 7, *[[0.0] * 7] * 9], atol=1e-5)  # a velocity of 1 is 0.2 rad
    np.testing.assert_allclose(actions[:, 7], 1.0)


def test_a_session_that_is_being_loaded_is_told_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words that the node shows in its diagnostics; its next request finds the checkpoint loaded."""
    monkeypatch.setattr(sessions, "FIRST_STATUS_S", 0.05)
    (tmp_path / "1000" / "params").mkdir(parents=True)
    loaded, policy = threading.Event(), Stub()
    with serving(tmp_path, lambda _: loaded.wait(20) and policy, codec=codecs.get("droid"), preload=False) as port:
        params = {"host": "127.0.0.1", "port": port, "request_timeout": 1.0, "protocol": "session", "checkpoint": ""}
        backend = RemoteBackend(Node(), params, DROID)  # type: ignore[arg-type]
        with pytest.raises(BackendError, match="loading checkpoint-1000"):
            backend.infer(observation())
        loaded.set()
        assert backend.infer(observation())["actions"].shape == (10, 8)
        backend.close()


def test_a_session_whose_codec_answers_with_poses_is_refused(tmp_path: Path) -> None:
    policy = Stub()
    with pytest.raises(BackendError, match="codec 'ee' answers with poses"):
        ask_session(tmp_path, "ee", policy)
    assert not policy.received
