from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import rclpy
from rclpy.parameter import Parameter

from openpi_ros import lifecycle
from openpi_ros.aloha_sim_node import AlohaSimNode
from openpi_ros.franka_sim_node import FrankaSimNode
from openpi_ros.sim_node import SimulationNode


@pytest.mark.ros
@pytest.mark.parametrize(
    ("simulator", "name", "value", "told"),
    [
        (AlohaSimNode, "robot", "alhoa", "There is no robot 'alhoa'; known: aloha"),
        (AlohaSimNode, "task", "stack", "Parameter 'task' is 'stack', but must be"),
        (AlohaSimNode, "cameras", ["cam_top"], "Parameter 'cameras'"),
        (AlohaSimNode, "camera_hertz", 5.0, "did you mean 'camera_hz'"),
        (FrankaSimNode, "robot", "aloha", "The Franka simulation needs joints and camera frames that"),
        (FrankaSimNode, "cube", "pink", "Parameter 'cube' is 'pink', but must be a string, one of red, green, blue"),
        (FrankaSimNode, "cameras", ["cam_high"], "Parameter 'cameras'"),
    ],
)
def test_a_wrong_parameter_fails_configuration_by_a_sentence(
    simulator: type[SimulationNode], name: str, value: Any, told: str
) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = simulator(context=context, parameter_overrides=[Parameter(name, value=value)])
    try:
        assert not lifecycle.bring_up(node)
        assert told in node.failure
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)
