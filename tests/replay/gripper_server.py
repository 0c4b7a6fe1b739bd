"""An action server of control_msgs/GripperCommand: `gripper_server.py NAME` prints each goal as a line of JSON."""

import json
import sys
from typing import Any

import rclpy
from control_msgs.action import GripperCommand
from rclpy.action import ActionServer


def execute(goal: Any) -> Any:
    """Says that the goal was reached."""
    command = goal.request.command
    print(json.dumps([command.position, command.max_effort]), flush=True)
    goal.succeed()
    return GripperCommand.Result(position=command.position, reached_goal=True)


def main() -> None:
    """Serves until it is killed."""
    rclpy.init()
    node = rclpy.create_node("gripper_server")
    ActionServer(node, GripperCommand, sys.argv[1], execute)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
