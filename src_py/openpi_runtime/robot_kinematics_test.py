from pathlib import Path

import pytest

from openpi_runtime import paths
from openpi_runtime.kinematics import urdf_joints
from openpi_runtime.located_yaml import SpecError
from openpi_runtime.robot_kinematics import robot_kinematics
from openpi_runtime.robots import available_robots, load_robot


@pytest.mark.parametrize("name", available_robots())
def test_every_description_fits_its_urdf(name: str) -> None:
    robot = load_robot(name)
    kinematics = robot_kinematics(robot)
    frames = [group.end_effector for group in robot.groups if group.end_effector and not group.pose]
    assert [frame for frame in frames if not kinematics.has_frame(frame)] == []
    assert set(urdf_joints(robot)) <= set(kinematics.joint_names)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("urdf: panda.urdf.xacro", "urdf: pandy.urdf", "urdf is 'pandy.urdf'; allowed: a URDF or xacro file"),
        ("panda_joint7", "panda_joint8", r"groups\[0\].joints\[6\] is 'panda_joint8'; allowed: .*panda_joint7"),
        ("panda_hand_tcp", "tool", r"groups\[0\].end_effector is 'tool'; allowed: a link"),
        ("-2.513", "0.5", r"rest\[3\] is 0.5; allowed: -3.0718 to -0.0698, the range of panda_joint4"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(right: str, wrong: str, message: str, tmp_path: Path) -> None:
    text = (paths.config_dir() / "robots" / "droid.yaml").read_text()
    assert right in text
    changed = tmp_path / "droid.yaml"
    changed.write_text(text.replace(right, wrong))
    with pytest.raises(SpecError, match=rf"droid.yaml, line \d+: {message}"):
        robot_kinematics(load_robot(changed))


def test_a_rest_that_is_not_given_is_not_checked(tmp_path: Path) -> None:
    lines = (paths.config_dir() / "robots" / "droid.yaml").read_text().splitlines()
    changed = tmp_path / "droid.yaml"
    changed.write_text("\n".join(line for line in lines if not line.startswith("rest:")))
    robot = load_robot(changed)
    assert robot.rest == (0.0,) * 8
    assert "panda_joint4" in robot_kinematics(robot).joint_names
