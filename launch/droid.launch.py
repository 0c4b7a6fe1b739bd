"""ros2 launch openpi_bringup droid.launch.py: the stack droid of openpi_bringup.stacks."""

from launch import LaunchDescription

from openpi_bringup.launch_adapter import describe
from openpi_bringup.stacks import DROID


def generate_launch_description() -> LaunchDescription:
    return describe(DROID)
