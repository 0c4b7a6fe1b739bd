from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from openpi.training.datasets import LeRobotDataset
from openpi_ros.convert_bag_to_lerobot import Args, main
from openpi_runtime.kinematics import Kinematics
from openpi_runtime.robots import load_robot

DROID = load_robot("droid")
STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
ARM = list(DROID.groups[0].joints)
START_NS = 1_000_000_000_000
WALL_NS = 1_700_000_000_000_000_000
STEPS = 31
REST = np.array(DROID.rest)


def at(second: float) -> np.ndarray:
    """Where the arm is: joint 1 turns by 0.3 rad a second."""
    return REST[:7] + np.array([0.3 * second, *[0.0] * 6])


class BagWriter:
    """Writes a bag as a DROID robot's drivers do: joint states at 100 Hz, pictures at 15 Hz, commands at 15 Hz."""

    def __init__(self, path: Path, prefix: str, slowness: float | None = None) -> None:
        """slowness: seconds of the recorder's clock to one of the robot's, where they are not the same clock."""
        self._slowness = slowness
        self._writer = Writer(path, version=9)
        self._writer.open()
        self._prefix = prefix
        self._connections: dict[str, object] = {}

    def write(self, topic: str, kind: str, second: float, **fields: object) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(self._prefix + topic, kind, typestore=STORE)
        stamp_ns = START_NS + round(second * 1e9)
        arrival_ns = stamp_ns if self._slowness is None else WALL_NS + round(self._slowness * second * 1e9)
        stamp = TYPES["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000))
        if kind != "std_msgs/msg/Float64MultiArray":
            fields["header"] = TYPES["std_msgs/msg/Header"](stamp, "")
        data = STORE.serialize_cdr(TYPES[kind](**fields), kind)
        self._writer.write(self._connections[topic], arrival_ns, data)

    def joints(self, second: float) -> None:
        position = np.array([*at(second), 0.04 - 0.02 * second])  # the gripper closes
        name = [*ARM, "panda_finger_joint1"]
        nothing = np.empty(0)
        kind = "sensor_msgs/msg/JointState"
        self.write("joint_states", kind, second, name=name, position=position, velocity=nothing, effort=nothing)

    def picture(self, camera: str, second: float, shade: int) -> None:
        data = np.full((48, 64, 3), shade, np.uint8).ravel()
        size = {"height": 48, "width": 64, "encoding": "rgb8", "is_bigendian": 0, "step": 192}
        self.write(f"{camera}/image_raw", "sensor_msgs/msg/Image", second, data=data, **size)

    def command(self, second: float) -> None:
        layout = TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        kind = "std_msgs/msg/Float64MultiArray"
        self.write("forward_position_controller/commands", kind, second, layout=layout, data=at(second + 0.1))
        grip = np.array([0.0])  # closed, on the driver's scale
        self.write("gripper_position_controller/commands", kind, second, layout=layout, data=grip)

    def close(self) -> None:
        self._writer.close()


def record(path: Path, prefix: str = "/", *, commands: bool = True, slowness: float | None = None) -> Path:
    """Two seconds; a command follows each picture by 10 ms."""
    writer = BagWriter(path, prefix, slowness)
    events = [(step / 100, "joints", 0) for step in range(210)]
    events += [(step / 15, "sight", step) for step in range(STEPS)]
    events += [(step / 15 + 0.01, "command", 0) for step in range(STEPS)] if commands else []
    for second, what, step in sorted(events):
        if what == "joints":
            writer.joints(second)
        elif what == "command":
            writer.command(second)
        else:
            writer.picture("exterior", second, 8 * step)
            writer.picture("wrist", second, 240 - 8 * step)
    writer.close()
    return path


def frames(folder: Path) -> list[dict]:
    dataset = LeRobotDataset(folder)
    return [dataset[step] for step in range(len(dataset))]


@pytest.mark.parametrize("prefix", ["/", "/lab/robot1/"])
def test_a_droid_bag_becomes_the_robots_columns(tmp_path: Path, prefix: str) -> None:
    bag, output = record(tmp_path / "bag", prefix), tmp_path / "data"
    assert main(Args(bags=(bag,), output=output, robot="droid", task="lift")) == 0
    steps = frames(output)
    assert len(steps) == STEPS
    for number in (0, 7, 30):
        state, action = np.asarray(steps[number]["observation.state"]), np.asarray(steps[number]["action"])
        second = number / 15
        np.testing.assert_allclose(state[:7], at(second), atol=0.3 * 0.01 + 1e-6)  # joint states come every 10 ms
        np.testing.assert_allclose(state[7], 0.5 * second, atol=0.011)  # 0 open, 1 closed
        np.testing.assert_allclose(action[:7] * 0.2, at(second + 0.11) - state[:7], atol=1e-5)
        assert action[7] == 1.0
        assert steps[number]["task"] == "lift"
        shade = np.asarray(steps[number]["observation.images.exterior"]).mean()
        np.testing.assert_allclose(shade, 8 * number, atol=4)


def test_a_simulated_robot_recorded_on_the_wall_clock(tmp_path: Path) -> None:
    actions = []
    for name, slowness in (("same", None), ("slow", 1.7)):
        bag, output = record(tmp_path / name, slowness=slowness), tmp_path / f"{name}_data"
        main(Args(bags=(bag,), output=output, robot="droid"))
        actions.append(np.array([step["action"] for step in frames(output)]))
    assert len(actions[0]) == len(actions[1]) == STEPS
    np.testing.assert_allclose(actions[1], actions[0], atol=1e-5)


@pytest.mark.parametrize("codec", [None, "ee"])
def test_bags_are_added_to_a_data_set_only_where_that_is_wanted(tmp_path: Path, codec: str | None) -> None:
    bag, output = record(tmp_path / "bag"), tmp_path / "data"
    for resume in (False, True):
        main(Args(bags=(bag,), output=output, robot="droid", codec=codec, resume=resume))
    assert len({int(frame["episode_index"]) for frame in frames(output)}) == 2
    with pytest.raises(ValueError, match="there already is a dataset"):
        main(Args(bags=(bag,), output=output, robot="droid", codec=codec))


def test_without_commands_the_next_state_is_the_action(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", commands=False)
    main(Args(bags=(bag, bag), output=tmp_path / "data", robot="droid"))
    steps = frames(tmp_path / "data")
    assert len(steps) == 2 * STEPS
    moved = [np.asarray(step["action"])[0] * 0.2 for step in steps]
    np.testing.assert_allclose(moved, 0.3 / 15, atol=0.3 * 0.011)
    assert steps[0]["task"] == DROID.default_prompt


def test_through_a_codec(tmp_path: Path) -> None:
    bag, output = record(tmp_path / "bag"), tmp_path / "data"
    main(Args(bags=(bag,), output=output, robot="droid", codec="ee", fps=5))
    steps = frames(output)
    assert len(steps) == 11
    kinematics = Kinematics.from_file(DROID.urdf_path)
    for number in (0, 10):
        action = np.asarray(steps[number]["action"])
        pose = kinematics.forward(dict(zip(ARM, at(number / 5 + 0.11), strict=True)), "panda_hand_tcp")
        np.testing.assert_allclose(action[:3], pose[:3, 3], atol=1e-5)
        np.testing.assert_allclose(action[7], 1.0)
        assert steps[number]["observation.images.side"].shape == (3, 224, 224)
        assert np.asarray(steps[number]["observation.state"]).shape == (8,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"robot": "aloha"}, "no topic follower_left/joint_states .* wanted for robot aloha"),
        ({"robot": "droid", "max_age": 0.02}, r"camera exterior is 0\.0\d s old"),
        ({"robot": "droid", "namespace": "other"}, "the state was never recorded"),
        ({"robot": "droid", "codec": "eee"}, "no codec 'eee'"),
    ],
)
def test_what_cannot_be_converted_is_told(tmp_path: Path, options: dict, words: str) -> None:
    bag = record(tmp_path / "bag")
    with pytest.raises(ValueError, match=words):
        main(Args(bags=(bag,), output=tmp_path / "data", fps=40, **options))


def test_a_missing_bag_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no bag .*nothing"):
        main(Args(bags=(tmp_path / "nothing",), output=tmp_path / "data"))
