"""ros2 launch openpi_bringup droid_remote.launch.py: the stack droid_remote of openpi_bringup.stacks."""

from launch import LaunchDescription

from openpi_bringup.launch_adapter import describe
from openpi_bringup.stacks import DROID_REMOTE


def generate_launch_description() -> LaunchDescription:
    return describe(DROID_REMOTE)
