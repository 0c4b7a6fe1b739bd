"""The policy node's backends, by name. Each module imports what it needs only when it is chosen."""

import importlib
from typing import Any

from rclpy.node import Node

from openpi_ros.backends.base import Backend, BackendError
from openpi_runtime.robots import RobotSpec

__all__ = ["BACKENDS", "Backend", "BackendError", "make_backend"]

BACKENDS = {
    "local": "openpi_ros.backends.local:LocalBackend",
    "remote": "openpi_ros.backends.remote:RemoteBackend",
    "expert": "openpi_ros.backends.expert:ExpertBackend",
    "hold": "openpi_ros.backends.hold:HoldBackend",
}


def make_backend(name: str, node: Node, params: dict[str, Any], robot: RobotSpec) -> Backend:
    """Makes a backend; takes as long as loading its policy does.

    Args:
        name: a key of `BACKENDS`.
        node: the policy node, for backends that subscribe to something (the expert) and for logging.
        params: the policy node's parameters.
        robot: the robot whose observations and actions the backend speaks.

    Raises:
        ValueError: the name is unknown, or a parameter the backend reads is wrong.
        FileNotFoundError: the checkpoint is not there.
    """
    if name not in BACKENDS:
        raise ValueError(f"There is no backend '{name}'; known are: {', '.join(BACKENDS)}.")
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(node, params, robot)
