"""aloha.launch.py under the real `launch`: the nodes come up, their topics are there, they end well."""

import random

import pytest

pytest.importorskip(
    "launch_pytest", reason="launch_pytest comes with a full ROS 2 installation (ros-jazzy-launch-pytest)"
)

import launch
import launch_pytest
import rclpy
from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource

from openpi_bringup.stacks import ALOHA

DOMAIN = random.randint(1, 100)
NAMESPACES = ("", "robot1")


@pytest.fixture(params=NAMESPACES, ids=["no namespace", "namespace"])
def namespace(request):
    return request.param


@launch_pytest.fixture
def aloha(namespace):
    from ament_index_python.packages import get_package_share_directory

    path = f"{get_package_share_directory('openpi_bringup')}/launch/aloha.launch.py"
    arguments = {"policy": "hold", "namespace": namespace}.items()
    return launch.LaunchDescription(
        [
            SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN)),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=arguments),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.mark.launch(fixture=aloha)
def test_nodes_and_topics_are_there(namespace):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node("looker", context=context)
    try:
        expected = {"aloha_sim_node", "openpi_policy_node", "chunk_executor_node"}
        for _ in range(300):
            rclpy.spin_once(node, timeout_sec=0.1, executor=rclpy.executors.SingleThreadedExecutor(context=context))
            if expected <= set(node.get_node_names()):
                break
        assert expected <= set(node.get_node_names())
        topics = {name for name, _ in node.get_topic_names_and_types()}
        assert f"/{namespace}/cam_high/image_raw".replace("//", "/") in topics
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def test_every_argument_of_the_stack_is_declared():
    from ament_index_python.packages import get_package_share_directory

    path = f"{get_package_share_directory('openpi_bringup')}/launch/aloha.launch.py"
    description = PythonLaunchDescriptionSource(path).get_launch_description(launch.LaunchContext())
    declared = {argument.name: argument.description for argument in description.get_launch_arguments()}
    assert declared == {argument.name: argument.description for argument in ALOHA.arguments}
