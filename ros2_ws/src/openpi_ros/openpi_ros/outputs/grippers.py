"""Commands to grippers that are driven apart from their arm."""

from __future__ import annotations

from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.task import Future
from std_msgs.msg import Float64MultiArray

from openpi_ros.outputs.channels import Channels
from openpi_runtime.grippers import Gripper, GripperChannel
from openpi_runtime.robots import RobotSpec
from openpi_runtime.safety import Vector

# A goal is sent where the command has moved by this part of the range: a gripper's driver is slow to take goals.
_DEAD_BAND = 0.01
_LOG_PERIOD_S = 2.0
# A goal that was just accepted has no known status yet, so it is asked what has ended, not what is under way.
_ENDED = (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED, GoalStatus.STATUS_ABORTED)


def driver_position(robot: RobotSpec, gripper: Gripper, value: float) -> float:
    """A command in runtime units on the driver's scale."""
    return gripper.calibration.joint.at(robot.gripper_convention.fraction(value))


class GripperTopicOutput:
    """std_msgs/Float64MultiArray with the position, in every tick."""

    def __init__(self, channels: Channels, robot: RobotSpec, gripper: Gripper, channel: GripperChannel) -> None:
        self._robot, self._gripper = robot, gripper
        self._publisher = channels.publisher(Float64MultiArray, channel.topic)

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes the position on the driver's scale."""
        position = driver_position(self._robot, self._gripper, float(command[0]))
        self._publisher.publish(Float64MultiArray(data=[position]))

    def stop(self) -> None:
        """The gripper stays where it was told to be."""


class GripperActionOutput:
    """control_msgs/action/GripperCommand: a goal whenever the command has moved. What is refused is sent again."""

    def __init__(
        self, channels: Channels, robot: RobotSpec, gripper: Gripper, channel: GripperChannel, action: type[Any]
    ) -> None:
        self._robot, self._gripper = robot, gripper
        self._max_effort = channel.max_effort
        self._goal_type: type[Any] = action.Goal
        self._logger = channels.node.get_logger()
        self._client = ActionClient(channels.node, action, channel.action)
        self._name = channel.action
        self._sent: float | None = None
        self._goal: Any = None
        channels.resources.callback(self._client.destroy)
        channels.names.append(channels.node.resolve_service_name(channel.action))

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Sends a goal where the command has moved."""
        position = driver_position(self._robot, self._gripper, float(command[0]))
        if not self._has_moved(position):
            return
        if not self._client.server_is_ready():
            self._warn(f"The gripper is not commanded: there is no action server {self._name}.")
            return
        self._sent = position
        goal = self._goal_type()
        goal.command.position, goal.command.max_effort = position, self._max_effort
        self._client.send_goal_async(goal).add_done_callback(self._on_answer)

    def stop(self) -> None:
        """Cancels a goal that is under way, so that nothing moves on."""
        goal, self._goal, self._sent = self._goal, None, None
        if goal is not None and goal.status not in _ENDED:
            goal.cancel_goal_async()

    def _has_moved(self, position: float) -> bool:
        if self._sent is None:
            return True
        ends = self._gripper.calibration.joint
        moved = abs(position - self._sent)
        return moved > 0 if position in (ends.closed, ends.open) else moved > _DEAD_BAND * abs(ends.open - ends.closed)

    def _on_answer(self, answer: Future) -> None:
        goal = answer.result()
        if goal is not None and goal.accepted:
            self._goal = goal
        else:
            self._sent = None
            self._warn(f"The gripper's action server {self._name} refused a goal; it is sent again.")

    def _warn(self, text: str) -> None:
        self._logger.warning(text, throttle_duration_sec=_LOG_PERIOD_S)


def make_gripper_output(channels: Channels, robot: RobotSpec, gripper: Gripper, channel: GripperChannel) -> Output:
    """The action where there is one and control_msgs is installed, else (and in a dry run) the topic."""
    action = _gripper_command() if channel.action and not channels.dry_run else None
    if action is None:
        return GripperTopicOutput(channels, robot, gripper, channel)
    return GripperActionOutput(channels, robot, gripper, channel, action)


def _gripper_command() -> type[Any] | None:
    try:
        from control_msgs.action import GripperCommand
    except ImportError:
        return None
    return GripperCommand
