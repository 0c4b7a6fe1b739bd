"""Inference on a policy server or a session server; needs no JAX here."""

import os
from typing import Any, Protocol

from rclpy.node import Node

from openpi_ros.backends.base import MEASURED, BackendError, for_policy
from openpi_runtime.robots import RobotSpec

API_KEY = "OPENPI_API_KEY"  # no parameter: everybody on the graph could read it
IMAGE_SIZE = 224  # what policies see; larger pictures only cost bandwidth


class Speech(Protocol):
    """What is said to one kind of server. Every method raises ValueError, a sentence for the user."""

    def connect(self, params: dict[str, Any], options: Any) -> Any:
        """A client that has connected."""

    def agree(self, metadata: dict[str, Any]) -> None:
        """Refuses a server that does not fit the robot."""

    def request(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The observation as it is sent, pictures of 224 x 224."""

    def result(self, answer: dict[str, Any], obs: dict[str, Any]) -> dict[str, Any]:
        """The answer with "actions" [H, D] of the robot."""


class RemoteBackend:
    """Forwards observations. A server that is gone is tried again at every request; until then the executor holds."""

    uses_images = True

    def __init__(self, node: Node, params: dict[str, Any], robot: RobotSpec) -> None:
        """Connects at the first request, so that robot and server may start in any order.

        Raises:
            ValueError: the protocol is for other robots.
        """
        from openpi_client.async_client import ClientOptions

        timeout_s = params["request_timeout"]
        self._speech: Speech = SessionSpeech(robot) if params["protocol"] == "session" else PolicySpeech(robot)
        self._params = params
        self._options = ClientOptions(timeout_s=timeout_s, connect_timeout_s=timeout_s)
        self._address = f"{params['host']}:{params['port']}"
        self._client: Any = None
        self._logger = node.get_logger()
        self.metadata: dict[str, Any] = {}  # of the server that was agreed with last

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """One request."""
        from openpi_client.errors import PolicyClientError

        try:
            if self._client is None:
                self._client = self._speech.connect(self._params, self._options)
                self._logger.info(f"Connected to policy server {self._address}.")
            self._agree()
            return self._speech.result(self._ask(obs), obs)
        except (PolicyClientError, ValueError) as error:
            raise BackendError(f"policy server {self._address}: {error}") from error

    def reset(self) -> None:
        """The server keeps no episode."""

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, obs: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._client.infer(self._speech.request(obs))
        finally:
            self._agree()  # the client may have connected again, to a server that was started with another config

    def _agree(self) -> None:
        said = self._client.get_server_metadata()
        if said is self.metadata:
            return
        try:
            self._speech.agree(said)
        except ValueError:
            self.close()
            raise
        self.metadata = said


class PolicySpeech:
    """The published protocol (`openpi serve`): observations in the form of the robot's policies."""

    def __init__(self, robot: RobotSpec) -> None:
        self._robot = robot

    def connect(self, params: dict[str, Any], options: Any) -> Any:
        from openpi_client.websocket_client_policy import WebsocketClientPolicy

        return WebsocketClientPolicy(params["host"], params["port"], os.environ.get(API_KEY), options=options)

    def agree(self, metadata: dict[str, Any]) -> None:
        """A server that says nothing about its robot is taken at its word."""
        expected = {
            "action_dim": len(self._robot.action),
            "rate_hz": self._robot.rate_hz,
            "cameras": [camera.name for camera in self._robot.cameras if camera.required],
        }
        for name, ours in expected.items():
            theirs = metadata.get(name, ours)
            fits = set(theirs) <= {c.name for c in self._robot.cameras} if name == "cameras" else theirs == ours
            if not fits:
                raise ValueError(
                    f"it has {name} {theirs}, but robot {self._robot.name} has {ours}; "
                    "serve a config for this robot (policy_metadata of your own says so), or choose the robot it is for"
                )

    def request(self, obs: dict[str, Any]) -> dict[str, Any]:
        return self._robot.observation.with_pictures(for_policy(obs), _shrunk)

    def result(self, answer: dict[str, Any], obs: dict[str, Any]) -> dict[str, Any]:
        return answer


class SessionSpeech:
    """A session server (`openpi serve-sessions`): the codec's signals, of a robot with one arm of seven joints."""

    def __init__(self, robot: RobotSpec) -> None:
        from openpi_runtime import session_signals
        from openpi_runtime.robot_kinematics import robot_kinematics

        session_signals.check_robot(robot)
        self._robot = robot
        self._kinematics = robot_kinematics(robot)
        self._signals: session_signals.SessionSignals | None = None

    def connect(self, params: dict[str, Any], options: Any) -> Any:
        from openpi_client.session_client_policy import SessionClientPolicy

        key, checkpoint = os.environ.get(API_KEY), params["checkpoint"] or None
        return SessionClientPolicy(params["host"], params["port"], checkpoint, key, options=options)

    def agree(self, metadata: dict[str, Any]) -> None:
        from openpi_runtime.session_signals import SessionSignals

        if not metadata.get("codec_info"):
            raise ValueError(
                f"its session has codec {metadata.get('codec')!r}; serve with --codec joints_traj or droid"
            )
        self._signals = SessionSignals(self._robot, self._kinematics, metadata["codec_info"])

    def request(self, obs: dict[str, Any]) -> dict[str, Any]:
        assert self._signals is not None
        pictures = {name: _shrunk(picture) for name, picture in self._robot.observation.pictures(obs).items()}
        return self._signals.observation(obs[MEASURED], pictures, obs["prompt"])

    def result(self, answer: dict[str, Any], obs: dict[str, Any]) -> dict[str, Any]:
        assert self._signals is not None
        return {**answer, "actions": self._signals.actions(answer, obs[MEASURED])}


def _shrunk(picture: Any) -> Any:
    from openpi_client import image_tools

    return image_tools.resize_with_pad(picture, IMAGE_SIZE, IMAGE_SIZE)
