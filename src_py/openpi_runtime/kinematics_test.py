from pathlib import Path

import numpy as np
import pytest

from openpi_runtime.kinematics import EndEffectors, Kinematics, command_limits
from openpi_runtime.robots import load_robot

PENDULUM = """<robot name="pendulum">
  <link name="base"/><link name="rod"/><link name="tip"/>
  <joint name="hinge" type="revolute"><parent link="base"/><child link="rod"/><axis xyz="0 1 0"/>
    <limit lower="-1.5" upper="2.0" velocity="3.0" effort="1"/></joint>
  <joint name="end" type="fixed"><parent link="rod"/><child link="tip"/><origin xyz="0 0 -0.5"/></joint>
</robot>"""


def test_limits_and_forward_kinematics_of_a_pendulum() -> None:
    pendulum = Kinematics(PENDULUM)
    assert [float(x[0]) for x in pendulum.limits(["hinge"])] == [-1.5, 2.0, 3.0]
    pose = pendulum.forward({"hinge": 0.3}, "tip")
    assert pose[:3, 3] == pytest.approx([-0.5 * np.sin(0.3), 0, -0.5 * np.cos(0.3)])


TURNTABLE = """<robot name="turntable">
  <link name="base"/><link name="table"/><link name="rod"/><link name="tip"/>
  <joint name="turn" type="continuous"><parent link="base"/><child link="table"/><axis xyz="0 0 1"/>
    <limit velocity="1.5" effort="1"/></joint>
  <joint name="hinge" type="revolute"><parent link="table"/><child link="rod"/><axis xyz="0 1 0"/>
    <limit lower="-1.5" upper="2.0" velocity="3.0" effort="1"/></joint>
  <joint name="end" type="fixed"><parent link="rod"/><child link="tip"/><origin xyz="0.5 0 0"/></joint>
</robot>"""


def test_a_continuous_joint_has_no_ends_and_shifts_no_others_limits() -> None:
    table = Kinematics(TURNTABLE)
    lower, upper, velocity = table.limits(["turn", "hinge"])
    assert (lower.tolist(), upper.tolist(), velocity.tolist()) == ([-np.inf, -1.5], [np.inf, 2.0], [1.5, 3.0])
    pose = table.forward({"turn": 8.0, "hinge": 0.3}, "tip")
    across = 0.5 * np.cos(0.3)
    assert pose[:3, 3] == pytest.approx([across * np.cos(8.0), across * np.sin(8.0), -0.5 * np.sin(0.3)])


def test_errors_name_what_is_there(tmp_path: Path) -> None:
    pendulum = Kinematics(PENDULUM)
    with pytest.raises(KeyError, match="no joint 'knee'; it has hinge"):
        pendulum.limits(["knee"])
    with pytest.raises(KeyError, match="no frame 'toe'"):
        pendulum.forward({}, "toe")
    with pytest.raises(FileNotFoundError, match=r"none.urdf does not exist"):
        Kinematics.from_file(tmp_path / "none.urdf")


@pytest.fixture(scope="module")
def aloha() -> Kinematics:
    return Kinematics.from_file(load_robot("aloha").urdf_path)


def test_aloha_command_limits_lie_within_the_urdfs(aloha: Kinematics) -> None:
    spec = load_robot("aloha")
    limits = command_limits(spec, aloha)
    lower, upper, velocity = aloha.limits(["follower_left/elbow"])
    assert limits.lower[2] == pytest.approx(lower[0] + spec.limits.position_margin)
    assert limits.upper[2] == pytest.approx(upper[0] - spec.limits.position_margin)
    assert limits.velocity[2] == pytest.approx(velocity[0]) == pytest.approx(np.pi)
    assert (limits.lower[6], limits.upper[6]) == (0.0, 1.0)
    assert limits.gripper.tolist() == ([False] * 6 + [True]) * 2


def test_aloha_arms_face_each_other(aloha: Kinematics) -> None:
    places = EndEffectors(load_robot("aloha"), aloha)(np.zeros(14))
    assert set(places) == {"left", "right"}
    assert places["left"][0] == pytest.approx(-places["right"][0], abs=1e-5)
    assert places["left"][2] == pytest.approx(places["right"][2], abs=1e-5)
