"""A bag of two seconds, in which every number is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from openpi_runtime.robots import RobotSpec, load_robot

STORE = get_typestore(Stores.ROS2_JAZZY)
BEGIN_NS = 10_000_000_000


@dataclasses.dataclass
class Bag:
    """Writes messages of a DROID at given times (seconds), in any order."""

    folder: Path
    robot: RobotSpec
    entries: list[tuple[float, str, Any]] = dataclasses.field(default_factory=list)

    def joints(self, at_s: float, angle: float, opening: float) -> None:
        """All joints at `angle`, the gripper open by `opening`."""
        (group,) = self.robot.groups
        names = [*group.joints, "panda_finger_joint1"]
        empty = np.array([])
        position = np.array([*[angle] * 7, 0.04 * opening])
        self._add("joint_states", at_s, "JointState", name=names, position=position, velocity=empty, effort=empty)

    def image(self, at_s: float, camera: str, value: int) -> None:
        """An image of one colour, red `value`, with blue first."""
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[..., 2] = value
        shape = {"height": 16, "width": 16, "step": 48, "encoding": "bgr8", "is_bigendian": 0}
        self._add(f"{camera}/image_raw", at_s, "Image", data=pixels.ravel(), **shape)

    def command(self, at_s: float, angle: float, closed: float) -> None:
        """All joints to `angle`; as our executor has simulators told, the gripper with them."""
        types = STORE.types
        duration = types["builtin_interfaces/msg/Duration"](sec=0, nanosec=0)
        empty = np.array([])
        point = types["trajectory_msgs/msg/JointTrajectoryPoint"](
            positions=np.array([*[angle] * 7, closed]),
            velocities=empty,
            accelerations=empty,
            effort=empty,
            time_from_start=duration,
        )
        names = [*self.robot.groups[0].joints, "gripper"]
        message = types["trajectory_msgs/msg/JointTrajectory"](header=_header(0), joint_names=names, points=[point])
        self.entries.append((at_s, "/joint_trajectory_controller/joint_trajectory", message))

    def write(self) -> Path:
        """The bag's folder."""
        with Writer(self.folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            connections: dict[str, Any] = {}
            for at_s, topic, message in sorted(self.entries, key=lambda entry: entry[0]):
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                writer.write(connections[topic], _ns(at_s), STORE.serialize_cdr(message, kind))
        return self.folder

    def _add(self, topic: str, at_s: float, kind: str, **fields: Any) -> None:
        message = STORE.types[f"sensor_msgs/msg/{kind}"](header=_header(_ns(at_s)), **fields)
        self.entries.append((at_s, f"/{topic}", message))


def _ns(at_s: float) -> int:
    return BEGIN_NS + round(at_s * 1e9)


def _header(stamp_ns: int) -> Any:
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="")


@pytest.fixture
def bag(tmp_path: Path) -> Bag:
    """Joints at 0.1 rad a second, images that count in 20 ms, no commands yet."""
    made = Bag(tmp_path / "bag", load_robot("droid"))
    for i in range(101):
        made.joints(i / 50, i / 500, 0.25)
        for camera in ("exterior", "wrist"):
            made.image(i / 50, camera, i)
    return made
