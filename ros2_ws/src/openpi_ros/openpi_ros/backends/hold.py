"""Holds the robot where it is: the whole path from camera to command without a policy."""

from typing import Any

import numpy as np
from rclpy.node import Node

from openpi_ros.backends.base import MEASURED
from openpi_runtime.robots import RobotSpec


class HoldBackend:
    """Answers every observation with its own state, `horizon` times. For robots whose actions are absolute."""

    uses_images = True

    def __init__(self, node: Node, params: dict[str, Any], robot: RobotSpec) -> None:
        relative = [column.name for column in robot.action if column.kind != "absolute"]
        if relative or robot.action_names != robot.state_names:
            raise ValueError(
                f"The backend 'hold' repeats the measured positions, but the actions of robot '{robot.name}' are not "
                "positions of its state; choose another backend."
            )
        self.metadata: dict[str, Any] = {"policy": "hold"}
        self._horizon: int = params["horizon"]

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        return {"actions": np.tile(obs[MEASURED], (self._horizon, 1)), "policy_timing": {"infer_ms": 0.0}}

    def reset(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to release."""
