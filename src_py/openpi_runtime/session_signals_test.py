import numpy as np
import pytest

from openpi_runtime.kinematics import Kinematics
from openpi_runtime.robots import load_robot
from openpi_runtime.session_signals import SessionSignals, check_robot

DROID = load_robot("droid")
STATE = np.array([0.1, -0.6, 0.2, -2.5, 0.3, 1.9, -0.4, 0.25])
PICTURES = {"wrist": np.zeros((4, 4, 3), np.uint8), "exterior": np.ones((4, 4, 3), np.uint8)}
JOINTS_TRAJ = {
    "name": "joints_traj",
    "observation": ["robot_state.q", "grip", "image.wrist", "image.exterior", "task"],
    "action_names": [*(f"robot_command.joints.{n}" for n in range(7)), "target_grip"],
    "fps": 15.0,
    "quaternion_order": "wxyz",
}


@pytest.fixture(scope="module")
def kinematics() -> Kinematics:
    return Kinematics.from_file(DROID.urdf_path)


@pytest.fixture
def signals(kinematics: Kinematics) -> SessionSignals:
    return SessionSignals(DROID, kinematics, JOINTS_TRAJ)


def test_the_codec_gets_the_signals_it_reads(signals: SessionSignals) -> None:
    sent = signals.observation(STATE, PICTURES, "stack")
    assert list(sent) == JOINTS_TRAJ["observation"]
    np.testing.assert_allclose(sent["robot_state.q"], STATE[:7], rtol=1e-6)
    np.testing.assert_allclose(sent["grip"], [0.25])
    assert sent["image.exterior"] is PICTURES["exterior"]
    assert sent["task"] == "stack"


@pytest.mark.parametrize("order", ["wxyz", "xyzw"])
def test_the_pose_is_that_of_the_hand_in_the_order_of_the_codec(kinematics: Kinematics, order: str) -> None:
    codec = {**JOINTS_TRAJ, "observation": ["robot_state.ee_pose"], "quaternion_order": order}
    pose = SessionSignals(DROID, kinematics, codec).observation(STATE, PICTURES, "")["robot_state.ee_pose"]
    names = [f"panda_joint{number}" for number in range(1, 8)]
    matrix = kinematics.forward(dict(zip(names, STATE[:7], strict=True)), "panda_hand_tcp")
    w, x, y, z = pose[3:] if order == "wxyz" else np.roll(pose[3:], 1)
    np.testing.assert_allclose(pose[:3], matrix[:3, 3], atol=1e-6)
    turned_x = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    np.testing.assert_allclose(turned_x, matrix[:3, 0], atol=1e-6)


def test_joint_targets_become_the_velocities_that_lead_there(signals: SessionSignals) -> None:
    steps = np.linspace(0.02, 0.2, 4)[:, None] * [1, -1, 0.5, 0, 0, 0, 1]
    targets = STATE[:7] + np.cumsum(steps, axis=0)
    actions = signals.actions({"robot_command.joints": targets, "target_grip": [[0], [1], [1], [0]]}, STATE)
    np.testing.assert_allclose(actions[:, :7] * DROID.velocity_step, steps, atol=1e-9)
    np.testing.assert_allclose(actions[:, 7], [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"robot_command.pose": np.zeros((2, 7))}, r"robot_command.joints of shape \[0\]"),
        ({"robot_command.joints": np.zeros((2, 6)), "target_grip": np.zeros((2, 1))}, r"expected \[horizon, 7\]"),
        ({"robot_command.joints": STATE[None, :7] + 0.3, "target_grip": [[0]]}, "step 0 .* at most 0.2 rad"),
    ],
)
def test_what_cannot_be_executed_is_refused(signals: SessionSignals, answer: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        signals.actions(answer, STATE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action_names": ["robot_command.pose.x", "target_grip"]}, "poses of the end effector"),
        ({"fps": 50.0}, "50 steps a second, but robot droid runs at 15"),
        ({"observation": ["robot_state.force"]}, "needs robot_state.force"),
    ],
)
def test_a_codec_that_does_not_fit_is_refused(kinematics: Kinematics, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SessionSignals(DROID, kinematics, {**JOINTS_TRAJ, **change})


@pytest.mark.parametrize("name", ["aloha", "libero"])
def test_robots_without_one_arm_of_seven_joints_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"which robot {name} is not"):
        check_robot(load_robot(name))


def test_a_camera_that_is_left_out_is_named(signals: SessionSignals) -> None:
    with pytest.raises(ValueError, match=r"image.wrist, but camera wrist"):
        signals.observation(STATE, {"exterior": PICTURES["exterior"]}, "")
