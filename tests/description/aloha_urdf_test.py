"""The URDF and the simulator describe one robot."""

from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest
import xacro

from openpi_sim.aloha import arms
from openpi_sim.aloha.world import CAMERAS, AlohaWorld
from openpi_sim.cameras import optical_pose
from openpi_sim.gl import mujoco

URDF = Path(__file__).parents[2] / "urdf" / "aloha.urdf.xacro"
LINKS = (
    *("shoulder_link", "upper_arm_link", "upper_forearm_link", "lower_forearm_link", "wrist_link", "gripper_link"),
    *("left_finger_link", "right_finger_link"),
)


@pytest.fixture(scope="module")
def robot():
    model = pin.buildModelFromXML(xacro.process_file(str(URDF)).toxml())
    return model, model.createData()


@pytest.fixture(scope="module")
def world() -> AlohaWorld:
    return AlohaWorld()


def _random_state(model: "pin.Model", rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Joint vector for pinocchio and the same as a state [14]."""
    q = rng.uniform(model.lowerPositionLimit, model.upperPositionLimit)
    state = []
    for side in arms.SIDES:
        indices = {j: model.joints[model.getJointId(f"follower_{side}/{j}")].idx_q for j in _joint_names()}
        q[indices["right_finger"]] = -q[indices["left_finger"]]
        state += [*(q[indices[j]] for j in arms.ARM_JOINTS), arms.finger_to_gripper(q[indices["left_finger"]])]
    return q, np.array(state)


def _joint_names() -> tuple[str, ...]:
    return (*arms.ARM_JOINTS, "left_finger", "right_finger")


def _frame(robot, name: str) -> np.ndarray:
    model, data = robot
    assert model.existFrame(name), name
    return data.oMf[model.getFrameId(name)].homogeneous


@pytest.mark.parametrize("seed", range(20))
def test_forward_kinematics_agrees_with_the_simulator(robot, world, seed):
    q, state = _random_state(robot[0], np.random.default_rng(seed))
    pin.framesForwardKinematics(*robot, q)
    world.place_arms(state)
    mujoco.mj_forward(world.model, world.data)
    for side in arms.SIDES:
        for link in LINKS:
            body = world.data.body(f"vx300s_{side}/{link}")
            here = _frame(robot, f"follower_{side}/{link}")
            np.testing.assert_allclose(here[:3, 3], body.xpos, atol=1e-6, err_msg=f"{side} {link}")
            np.testing.assert_allclose(here[:3, :3], body.xmat.reshape(3, 3), atol=1e-6, err_msg=f"{side} {link}")
    for camera, scenes in CAMERAS.items():
        here = _frame(robot, f"{camera}_optical_frame")
        np.testing.assert_allclose(here, optical_pose(world.data, scenes), atol=1e-6, err_msg=camera)


def test_joint_limits_are_the_simulators(robot, world):
    model = robot[0]
    for side in arms.SIDES:
        for joint in _joint_names():
            index = model.joints[model.getJointId(f"follower_{side}/{joint}")].idx_q
            limits = model.lowerPositionLimit[index], model.upperPositionLimit[index]
            assert limits == pytest.approx(tuple(world.model.joint(f"vx300s_{side}/{joint}").range))


def test_the_arms_turn_at_most_at_the_motors_speed(robot):
    model = robot[0]
    speeds = {name: model.velocityLimit[model.joints[i].idx_v] for i, name in enumerate(model.names) if i}
    assert {speed for name, speed in speeds.items() if "finger" not in name} == {np.pi}
    assert {speed for name, speed in speeds.items() if "finger" in name} == {1.0}
