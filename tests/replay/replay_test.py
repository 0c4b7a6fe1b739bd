"""Real hardware without hardware: a bag with messages shaped like the real drivers' moves every robot's stack.

Joints in another order and with a stranger among them, two publishers on one topic, no velocity and no effort, a
compressed camera beside a raw one with padded rows, best effort. Our own recorder sees what the stack makes of it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from openpi_ros.commander import PolicyCommander
from openpi_runtime import paths
from openpi_runtime.kinematics import Kinematics, command_limits
from openpi_runtime.robots import Camera, Group, RobotSpec, load_robot

HERE = Path(__file__).parent
STORE = get_typestore(Stores.ROS2_JAZZY)
SECONDS, JOINT_HZ, GRIPPER_HZ, CAMERA_HZ = 2.0, 60, 30, 15
SWAY = 0.02  # rad, of every joint about its rest pose, once in the bag's length
OPENING = 0.4  # of the grippers


def variant(name: str, camera: str, folder: Path) -> Path:
    """The robot's description with one camera compressed, as a user would write it."""
    text = (paths.config_dir() / f"robots/{name}.yaml").read_text()
    raw, compressed = f"topic: {camera}/image_raw,", f"topic: {camera}/image_raw/compressed, compressed: true,"
    assert raw in text
    path = folder / f"my_{name}.yaml"
    path.write_text(text.replace(raw, compressed))
    return path


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
            writer.write(connections[topic], begin_ns + round(at_s * 1e9), STORE.serialize_cdr(message, kind))


def _driver_messages(robot: RobotSpec) -> Iterator[tuple[str, float, Any]]:
    for group in robot.groups:
        for at_s in np.arange(0, SECONDS, 1 / JOINT_HZ):
            yield f"/{group.joint_states}", at_s, _arm(robot, group, at_s)
        for at_s in np.arange(0.004, SECONDS, 1 / GRIPPER_HZ):
            yield f"/{group.joint_states}", at_s, _gripper(group)
    for camera in robot.cameras:
        for at_s in np.arange(0.002, SECONDS, 1 / CAMERA_HZ) if camera.required else ():
            yield f"/{camera.topic}", at_s, _image(camera)


def _arm(robot: RobotSpec, group: Group, at_s: float) -> Any:
    rest = [value for value, column in zip(robot.rest, robot.state, strict=True) if column.group == group.name]
    angles = np.array(rest[: len(group.joints)]) + SWAY * np.sin(2 * np.pi * at_s / SECONDS)
    named = {"stranger": 9.0} | dict(zip(group.joints, angles, strict=True))
    return _joint_state(dict(reversed(named.items())))


def _gripper(group: Group) -> Any:
    assert group.gripper is not None
    return _joint_state({group.gripper.state_joint: group.gripper.calibration.position.at(OPENING)})


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


class Recorded:
    """What our recorder saw."""

    def __init__(self, bag: Path) -> None:
        self.messages: dict[str, list[Any]] = {}
        with AnyReader([bag]) as reader:
            for connection, _, data in reader.messages():
                if not connection.topic.endswith(("image_raw", "compressed")):
                    message = reader.deserialize(data, connection.msgtype)
                    self.messages.setdefault(connection.topic, []).append(message)

    def trajectory(self, topic: str) -> np.ndarray:
        return np.array([message.points[0].positions for message in self.messages[topic]])

    def values(self, topic: str, field: str) -> np.ndarray:
        return np.array([getattr(message, field) for message in self.messages[topic]])


def run(start: Any, domain: int, monkeypatch: Any, folder: Path, robot: Path, stack_name: str) -> Recorded:
    """Plays the bag to the real robot's stack until it has commanded for a while."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    write_bag(load_robot(robot), folder / "drivers")
    start(str(HERE / "player.py"), str(folder / "drivers"))
    arguments = ("sim:=false", "policy:=hold", f"robot:={robot}", f"record:={folder / 'seen'}")
    stack = start("openpi_bringup.up", stack_name, *arguments)
    stack.wait_for_text("Ready: backend hold", 60)
    with PolicyCommander() as commander:
        commander.bring_up()
        commander.start()
        commander.wait_for(lambda: commander.state is not None and commander.state.chunk_id >= 5, 60.0, "five chunks")
        commander.stop()
    stack.process.terminate()
    stack.wait_for_end()
    return Recorded(folder / "seen")


def check(commands: np.ndarray, robot: RobotSpec, group: str) -> None:
    """The commands of an arm's joints lie within its limits, and about where the robot was."""
    limits = command_limits(robot, Kinematics.from_file(robot.urdf_path))
    columns = [i for i in robot.group_columns(robot.group(group)) if not limits.gripper[i]]
    rest = np.array([robot.rest[[(c.group, c.joint) for c in robot.state].index(_key(robot, i))] for i in columns])
    assert len(commands) > 10
    assert (commands >= limits.lower[columns] - 1e-6).all()
    assert (commands <= limits.upper[columns] + 1e-6).all()
    assert np.abs(commands - rest).max() < 2 * SWAY
    assert np.ptp(commands, axis=0).min() > SWAY / 4  # what was sensed came through, for every joint


def _key(robot: RobotSpec, column: int) -> tuple[str, str]:
    return robot.action[column].group, robot.action[column].joint


@pytest.mark.usefixtures("driver_packages")
def test_aloha(start, domain, monkeypatch, tmp_path):
    path = variant("aloha", "cam_high", tmp_path)
    seen, robot = run(start, domain, monkeypatch, tmp_path, path, "aloha"), load_robot(path)
    for side in ("left", "right"):
        check(seen.values(f"/follower_{side}/commands/joint_group", "cmd"), robot, side)
        motor = seen.values(f"/follower_{side}/commands/joint_single", "cmd")
        assert motor == pytest.approx([-0.6213 + OPENING * (1.4910 + 0.6213)] * len(motor), abs=1e-3)


@pytest.mark.usefixtures("driver_packages")
def test_droid(start, domain, monkeypatch, tmp_path):
    server = start(str(HERE / "gripper_server.py"), "franka_gripper/gripper_action")
    path = variant("droid", "exterior", tmp_path)
    seen = run(start, domain, monkeypatch, tmp_path, path, "droid")
    check(seen.trajectory("/joint_trajectory_controller/joint_trajectory"), load_robot(path), "arm")
    goals = [json.loads(line) for line in server.output().splitlines() if line.startswith("[")]
    assert goals[-1] == [0.0, 20.0]  # 0.6 closed is binarised: wholly closed
    assert "/gripper_position_controller/commands" not in seen.messages
