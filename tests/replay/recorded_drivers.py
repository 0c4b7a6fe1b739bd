"""A bag with messages shaped like real drivers'.

Joints in another order and with a stranger among them, two senders on one topic, no velocity and no effort, compressed
cameras beside raw ones with padded rows and blue first. `player.py` plays it, best effort.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from openpi_runtime.robots import Camera, Group, RobotSpec

STORE = get_typestore(Stores.ROS2_JAZZY)
SECONDS, JOINT_HZ, GRIPPER_HZ, CAMERA_HZ = 2.0, 60, 30, 15
SWAY = 0.02  # rad, of every joint about its rest pose, once in the bag's length
OPENING = 0.4  # of the grippers


def write_bag(robot: RobotSpec, folder: Path) -> None:
    """What the robot's drivers published in two seconds."""
    begin_ns = 1_000_000_000
    messages = [(at_s, topic, message) for topic, at_s, message in _driver_messages(robot)]
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for at_s, topic, message in sorted(messages, key=lambda entry: entry[0]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            stamp_ns = begin_ns + round(at_s * 1e9)
            data = bytearray(STORE.serialize_cdr(message, kind))
            struct.pack_into("<iI", data, 4, *divmod(stamp_ns, 1_000_000_000))  # the header comes first
            writer.write(connections[topic], stamp_ns, bytes(data))


def _driver_messages(robot: RobotSpec) -> Iterator[tuple[str, float, Any]]:
    for group in robot.groups:
        for at_s in np.arange(0, SECONDS, 1 / JOINT_HZ):
            if group.pose:
                yield f"/{group.pose}", at_s, _pose(at_s)
            yield f"/{group.joint_states}", at_s, _arm(robot, group, at_s)
        for at_s in np.arange(0.004, SECONDS, 1 / GRIPPER_HZ):
            yield f"/{group.joint_states}", at_s, _gripper(group)
    for camera in robot.cameras:
        for at_s in np.arange(0.002, SECONDS, 1 / CAMERA_HZ) if camera.required else ():
            yield f"/{camera.topic}", at_s, _image(camera)


def _arm(robot: RobotSpec, group: Group, at_s: float) -> Any:
    rest = {(c.group, c.joint): value for c, value in zip(robot.state, robot.rest, strict=True)}
    joints = () if group.pose else group.joints
    angles = {joint: rest[group.name, joint] + _sway(at_s) for joint in joints}
    return _joint_state(dict(reversed(({"stranger": 9.0} | angles).items())))


def _pose(at_s: float) -> Any:
    types = STORE.types
    place = types["geometry_msgs/msg/Point"](x=0.4 + _sway(at_s), y=0.0, z=1.0)
    upright = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    pose = types["geometry_msgs/msg/Pose"](position=place, orientation=upright)
    return types["geometry_msgs/msg/PoseStamped"](header=_header(), pose=pose)


def _sway(at_s: float) -> float:
    return SWAY * np.sin(2 * np.pi * at_s / SECONDS)


def _gripper(group: Group) -> Any:
    assert group.gripper is not None
    finger = group.gripper.calibration.position.at(OPENING)
    return _joint_state(dict.fromkeys(group.sensed, -finger) | {group.gripper.state_joint: finger})


def _header() -> Any:
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="")


def _joint_state(positions: dict[str, float]) -> Any:
    return STORE.types["sensor_msgs/msg/JointState"](
        header=_header(),
        name=list(positions),
        position=np.array(list(positions.values())),
        velocity=np.array([]),
        effort=np.array([]),
    )


def _image(camera: Camera) -> Any:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    if camera.compressed:
        file = io.BytesIO()
        PillowImage.fromarray(pixels).save(file, "JPEG")
        data = np.frombuffer(file.getvalue(), np.uint8)
        return STORE.types["sensor_msgs/msg/CompressedImage"](header=_header(), format="jpeg", data=data)
    rows = np.pad(pixels.reshape(48, 192), ((0, 0), (0, 8)))
    return STORE.types["sensor_msgs/msg/Image"](
        header=_header(), height=48, width=64, encoding="bgr8", is_bigendian=0, step=200, data=rows.ravel()
    )
