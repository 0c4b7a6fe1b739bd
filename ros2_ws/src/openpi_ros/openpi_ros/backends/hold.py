"""Holds the robot where it is: the whole path from camera to command without a policy."""

from typing import Any

import numpy as np
from rclpy.node import Node

from openpi_ros.backends.base import MEASURED
from openpi_runtime.robots import RobotSpec
from openpi_runtime.standing import StandingAction


class HoldBackend:
    """Answers every observation with the action that keeps the robot there, `horizon` times."""

    uses_images = True

    def __init__(self, node: Node, params: dict[str, Any], robot: RobotSpec) -> None:
        """Raises ValueError where the robot's actions ask for positions that its state does not hold."""
        self.metadata: dict[str, Any] = {"policy": "hold"}
        self._standing = StandingAction(robot)
        self._horizon: int = params["horizon"]

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        action = self._standing.at(obs[MEASURED])
        return {"actions": np.tile(action, (self._horizon, 1)), "policy_timing": {"infer_ms": 0.0}}

    def reset(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to release."""
