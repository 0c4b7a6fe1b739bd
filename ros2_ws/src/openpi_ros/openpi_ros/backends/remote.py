"""Inference on a policy server (`openpi serve`, or any server of the published protocol); needs no JAX here."""

from typing import Any

import numpy as np
from rclpy.node import Node

from openpi_ros.backends.base import BackendError, for_policy
from openpi_runtime.robots import RobotSpec

IMAGE_SIZE = 224  # what policies see; larger pictures only cost bandwidth


class RemoteBackend:
    """Forwards observations. A server that is gone is tried again at every request; until then the executor holds."""

    uses_images = True

    def __init__(self, node: Node, params: dict[str, Any], robot: RobotSpec) -> None:
        """Connects at the first request, so that robot and server may start in any order."""
        from openpi_client.async_client import ClientOptions
        from openpi_client.websocket_client_policy import WebsocketClientPolicy

        timeout_s = params["request_timeout"]
        options = ClientOptions(timeout_s=timeout_s, connect_timeout_s=timeout_s)
        self._connect = lambda: WebsocketClientPolicy(params["host"], params["port"], options=options)
        self._address = f"{params['host']}:{params['port']}"
        self._robot = robot
        self._client: Any = None
        self._logger = node.get_logger()
        self.metadata: dict[str, Any] = {}

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """One request, images made small before they are sent."""
        from openpi_client.errors import PolicyClientError

        try:
            if self._client is None:
                self._client = self._connect()
                self._check(self._client.get_server_metadata())
            return self._client.infer(self._small(obs))
        except PolicyClientError as error:
            raise BackendError(f"policy server {self._address}: {error}") from error

    def reset(self) -> None:
        """The server keeps no episode."""

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()

    def _check(self, metadata: dict[str, Any]) -> None:
        """Refuses a server that says it is for another robot; one that says nothing is taken at its word."""
        self.metadata = metadata
        expected = {
            "action_dim": len(self._robot.action),
            "rate_hz": self._robot.rate_hz,
            "cameras": [camera.name for camera in self._robot.cameras if camera.required],
        }
        for name, ours in expected.items():
            theirs = metadata.get(name, ours)
            fits = set(theirs) <= {c.name for c in self._robot.cameras} if name == "cameras" else theirs == ours
            if not fits:
                self._client.close()
                self._client = None
                raise BackendError(
                    f"policy server {self._address} has {name} {theirs}, but robot {self._robot.name} has {ours}; "
                    "serve a config for this robot, or choose the robot it is for"
                )
        self._logger.info(f"Connected to policy server {self._address}.")

    def _small(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The observation as it is sent: pictures of 224 x 224, without what is only for this process."""
        from openpi_client import image_tools

        def shrink(picture: np.ndarray) -> np.ndarray:
            return image_tools.resize_with_pad(picture, IMAGE_SIZE, IMAGE_SIZE)

        return self._robot.observation.with_pictures(for_policy(obs), shrink)
