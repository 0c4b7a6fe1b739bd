"""ros2 launch openpi_bringup aloha.launch.py: the ALOHA stack of openpi_bringup.stacks."""

from launch import LaunchDescription

from openpi_bringup.launch_adapter import describe
from openpi_bringup.stacks import ALOHA


def generate_launch_description() -> LaunchDescription:
    return describe(ALOHA)
