"""ros2 launch openpi_bringup robot.launch.py: the stack robot of openpi_bringup.stacks."""

from launch import LaunchDescription

from openpi_bringup.launch_adapter import describe
from openpi_bringup.stacks import ROBOT


def generate_launch_description() -> LaunchDescription:
    return describe(ROBOT)
