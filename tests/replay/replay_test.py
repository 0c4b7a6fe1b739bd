"""Real hardware without hardware: a bag with messages shaped like the real drivers' moves every robot's stack.

What is unusual about them is in recorded_drivers.py. Our own recorder sees what the stack makes of it.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_drivers import OPENING, SWAY
from rosbags.highlevel import AnyReader

from openpi_ros import convert_bag_to_lerobot
from openpi_ros.commander import PolicyCommander
from openpi_runtime import paths
from openpi_runtime.kinematics import Kinematics, command_limits
from openpi_runtime.modes import Mode
from openpi_runtime.robots import RobotSpec, load_robot

HERE = Path(__file__).parent


def variant(name: str, camera: str, folder: Path) -> Path:
    """The robot's description with one camera compressed, as a user would write it."""
    text = (paths.config_dir() / f"robots/{name}.yaml").read_text()
    raw, compressed = f"topic: {camera}/image_raw,", f"topic: {camera}/image_raw/compressed, compressed: true,"
    assert raw in text
    path = folder / f"my_{name}.yaml"
    path.write_text(text.replace(raw, compressed))
    return path


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


def run(start: Any, play: Any, folder: Path, robot: Path, stack_name: str) -> Recorded:
    """Plays the bag to the real robot's stack until it has commanded for a while."""
    play(load_robot(robot))
    real = () if stack_name == "robot" else ("sim:=false",)
    arguments = ("policy:=hold", f"robot:={robot}", f"record:={folder / 'seen'}")
    stack = start("openpi_bringup.up", stack_name, *real, *arguments)
    stack.wait_for_text("Ready: backend hold", 60)
    with PolicyCommander() as commander:
        commander.bring_up()
        commander.start()
        commander.wait_for(lambda: commander.state.mode == Mode.RUNNING, 30.0, "a motion")
        first = commander.state.chunk_id
        commander.wait_for(lambda: commander.state.chunk_id >= first + 3, 60.0, "three more chunks")
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
def test_aloha(start, play, tmp_path):
    path = variant("aloha", "cam_high", tmp_path)
    seen, robot = run(start, play, tmp_path, path, "aloha"), load_robot(path)
    for side in ("left", "right"):
        check(seen.values(f"/follower_{side}/commands/joint_group", "cmd"), robot, side)
        motor = seen.values(f"/follower_{side}/commands/joint_single", "cmd")
        assert motor == pytest.approx([-0.6213 + OPENING * (1.4910 + 0.6213)] * len(motor), abs=1e-3)


@pytest.mark.usefixtures("driver_packages")
def test_droid(start, play, tmp_path):
    server = start(str(HERE / "gripper_server.py"), "franka_gripper/gripper_action")
    path = variant("droid", "exterior", tmp_path)
    seen = run(start, play, tmp_path, path, "droid")
    check(seen.trajectory("/joint_trajectory_controller/joint_trajectory"), load_robot(path), "arm")
    goals = [json.loads(line) for line in server.output().splitlines() if line.startswith("[")]
    assert goals[-1] == [0.0, 20.0]  # 0.6 closed is binarised: wholly closed
    assert "/gripper_position_controller/commands" not in seen.messages
    converted = convert_bag_to_lerobot.Args(bags=(tmp_path / "seen",), output=tmp_path / "set", robot=str(path))
    assert convert_bag_to_lerobot.main(converted) == 0  # what we recorded, we can learn from


def test_without_control_msgs_a_gripper_is_commanded_on_its_topic(start, play, tmp_path):
    if importlib.util.find_spec("control_msgs") is not None:
        pytest.skip("control_msgs is installed, so grippers take actions")
    seen = run(start, play, tmp_path, variant("droid", "exterior", tmp_path), "droid")
    positions = seen.values("/gripper_position_controller/commands", "data")
    assert len(positions) > 10
    assert 0.0 <= positions.min() <= positions.max() < 0.4 * 0.04, "a finger, from where it was"
    assert positions[-1] == 0.0  # 0.6 closed is binarised: wholly closed


def test_libero(start, play, tmp_path):
    """No real robot has it, but any could: a hand moved by deltas of its pose."""
    seen = run(start, play, tmp_path, variant("libero", "agentview", tmp_path), "robot")
    actions = seen.values("/sim/action", "data")
    assert len(actions) > 10
    assert actions == pytest.approx(np.tile([*[0.0] * 6, 1 - 2 * OPENING], (len(actions), 1)), abs=0.03)
