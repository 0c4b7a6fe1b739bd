from pathlib import Path

import pytest

from openpi_runtime import paths
from openpi_runtime.conftest import TWIN
from openpi_runtime.kinematics import urdf_joints
from openpi_runtime.located_yaml import SpecError
from openpi_runtime.robot_kinematics import robot_kinematics
from openpi_runtime.robots import available_robots, load_robot

URDF = """<robot name="twin"><link name="base"/><link name="arm"/><joint name="elbow" type="revolute">
<parent link="base"/><child link="arm"/><axis xyz="0 0 1"/>
<limit lower="-{half}" upper="{half}" velocity="1" effort="1"/></joint></robot>"""


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
        (
            "unit: rad, group: arm, joint: panda_joint3",
            "unit: m, group: arm, joint: panda_joint3",
            r"state\[2\].unit is 'm'; allowed: rad, since the URDF's panda_joint3",
        ),
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


@pytest.mark.parametrize(("limits", "place"), [("", "2: the file"), ("limits: {position_margin: 0.05}", "21: limits")])
def test_a_margin_leaves_something_of_each_range(tmp_path: Path, limits: str, place: str) -> None:
    path = tmp_path / "twin.yaml"
    path.write_text(TWIN + limits)
    (tmp_path / "twin.urdf").write_text(URDF.format(half=0.004))
    with pytest.raises(
        SpecError, match=rf"line {place} leaves nothing of the URDF's range of elbow; .*less than 0.004"
    ):
        robot_kinematics(load_robot(path))
    (tmp_path / "twin.urdf").write_text(URDF.format(half=0.06))
    assert robot_kinematics(load_robot(path)).unit("elbow") == "rad"


def test_a_rest_that_is_not_given_is_not_checked(tmp_path: Path) -> None:
    lines = (paths.config_dir() / "robots" / "droid.yaml").read_text().splitlines()
    changed = tmp_path / "droid.yaml"
    changed.write_text("\n".join(line for line in lines if not line.startswith("rest:")))
    robot = load_robot(changed)
    assert robot.rest == (0.0,) * 8
    assert "panda_joint4" in robot_kinematics(robot).joint_names


def test_a_hand_that_a_pose_commands_is_looked_up_too(tmp_path: Path) -> None:
    text = (paths.config_dir() / "robots" / "libero.yaml").read_text()
    changed = tmp_path / "libero.yaml"
    changed.write_text(text.replace("    pose: ", "    end_effector: panda_hand_tcp\n    pose: "))
    robot_kinematics(load_robot(changed))
    changed.write_text(text.replace("    pose: ", "    end_effector: claw\n    pose: "))
    with pytest.raises(SpecError, match=r"groups\[0\].end_effector is 'claw'; allowed: a link"):
        robot_kinematics(load_robot(changed))
