"""What RViz shows of a robot: its description, its joints by URDF name, and the path a chunk leads along."""

import itertools
from collections.abc import Callable

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import ColorRGBA, String
from visualization_msgs.msg import Marker, MarkerArray

from openpi_ros import qos
from openpi_ros.conversions import to_time
from openpi_runtime.chunk import ActionChunk
from openpi_runtime.conventions import ActionConvention
from openpi_runtime.kinematics import EndEffectors, Kinematics, robot_description
from openpi_runtime.robots import RobotSpec

_LINE_WIDTH_M = 0.006
_POINTS = 25  # of each path: enough for a smooth line
_COLOURS = ((0.1, 0.6, 1.0), (1.0, 0.5, 0.1), (0.2, 0.8, 0.3))


class Visuals:
    """Publishes `robot_description` (latched), `joint_states` (URDF names) and `~/predicted_path`."""

    def __init__(self, node: Node, robot: RobotSpec, frame_id: str) -> None:
        description = robot_description(robot.urdf_path)
        self._frame_id = frame_id
        self._path_of = EndEffectors(robot, Kinematics(description))
        self._convention = ActionConvention(robot)
        self._paths = node.create_publisher(MarkerArray, "~/predicted_path", qos.CHUNK)
        node.create_publisher(String, "robot_description", qos.LATCHED).publish(String(data=description))
        # What a driver publishes on `joint_states` itself is where RViz looks.
        elsewhere = [group for group in robot.groups if group.joint_states != "joint_states"]
        if elsewhere:  # else a publisher would seem to be the driver
            self._joints = node.create_publisher(JointState, "joint_states", qos.STATE)
        for group in elsewhere:
            node.create_subscription(JointState, group.joint_states, self._forwarder(group.urdf_prefix), qos.SENSOR)

    def show(self, chunk: ActionChunk, measured: np.ndarray) -> None:
        """Publishes the paths of all end effectors from the measured positions [dim] on, if anybody looks."""
        if self._paths.get_subscription_count():
            targets = self._convention.path(chunk.actions, measured)
            self._paths.publish(path_markers(self._path_of, targets, chunk.stamp_ns, self._frame_id))

    def _forwarder(self, prefix: str) -> Callable[[JointState], None]:
        def forward(message: JointState) -> None:
            if self._joints.get_subscription_count():
                message.name = [prefix + name for name in message.name]
                self._joints.publish(message)

        return forward


def path_markers(end_effectors: EndEffectors, targets: np.ndarray, stamp_ns: int, frame_id: str) -> MarkerArray:
    """One line per end effector through the positions that a chunk's targets [h, dim] lead to."""
    rows = np.unique(np.linspace(0, len(targets) - 1, _POINTS).round().astype(int))
    positions = [end_effectors(targets[row]) for row in rows]
    markers = []
    for number, (name, colour) in enumerate(zip(positions[0], itertools.cycle(_COLOURS), strict=False)):
        line = _line(number, name, colour, frame_id, to_time(stamp_ns))
        line.points = [Point(x=float(p[name][0]), y=float(p[name][1]), z=float(p[name][2])) for p in positions]
        markers.append(line)
    return MarkerArray(markers=markers)


def _line(number: int, name: str, colour: tuple[float, float, float], frame_id: str, stamp: Time) -> Marker:
    line = Marker(ns=name, id=number, type=Marker.LINE_STRIP, action=Marker.ADD)
    line.header.frame_id = frame_id
    line.header.stamp = stamp
    line.scale.x = _LINE_WIDTH_M
    line.pose.orientation.w = 1.0
    line.color = ColorRGBA(r=colour[0], g=colour[1], b=colour[2], a=1.0)
    return line
