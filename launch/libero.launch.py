"""ros2 launch openpi_bringup libero.launch.py: the stack libero of openpi_bringup.stacks."""

from launch import LaunchDescription

from openpi_bringup.launch_adapter import describe
from openpi_bringup.stacks import LIBERO


def generate_launch_description() -> LaunchDescription:
    return describe(LIBERO)
