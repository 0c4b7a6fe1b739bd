from pathlib import Path

import numpy as np
import pinocchio
import pytest
import xacro

from openpi_sim.franka import panda
from openpi_sim.franka.expert import CUBES, TOP_SPEED, Expert, chunk, cube_of
from openpi_sim.franka.world import CONTROL_HZ, FrankaWorld
from openpi_sim.gl import mujoco

URDF = Path(__file__).parents[3] / "urdf/panda.urdf.xacro"


@pytest.fixture(scope="module")
def world():
    return FrankaWorld(URDF)


@pytest.fixture(scope="module")
def expert():
    return Expert(URDF)


@pytest.mark.parametrize(
    ("velocity", "displacement"),
    [
        ([0.5, 0, 0, 0, 0, 0, 0], [0.1, 0, 0, 0, 0, 0, 0]),
        ([1, -1, 0, 0, 0, 0, 0.25], [0.2, -0.2, 0, 0, 0, 0, 0.05]),
        ([2, -1, 0, 0, 0, 0, 0.5], [0.2, -0.1, 0, 0, 0, 0, 0.05]),  # rescaled: the direction stays
        ([0, 0, 0, -4, 0, 0, 0], [0, 0, 0, -0.2, 0, 0, 0]),
    ],
)
def test_droid_velocities_become_displacements(velocity, displacement):
    measured = np.array([0.1, -0.6, 0.2, -2.5, 0.0, 1.9, 0.3, 0.0])
    target = panda.joint_target(np.append(velocity, 0.0), measured)
    np.testing.assert_allclose(target[:7] - measured[:7], displacement, atol=1e-12)


@pytest.mark.parametrize(("action", "gripper"), [(0.0, 0.0), (0.5, 0.0), (0.51, 1.0), (1.0, 1.0)])
def test_the_gripper_is_binarised(action, gripper):
    assert panda.joint_target(np.append(np.zeros(7), action), np.zeros(8))[7] == gripper


def test_forward_kinematics_of_the_urdf_agrees_with_the_simulator(world):
    model = pinocchio.buildModelFromXML(xacro.process_file(str(URDF)).toxml())
    data, frames = model.createData(), ("panda_hand_tcp", "wrist_optical_frame", "exterior_optical_frame")
    rng = np.random.default_rng(0)
    world.reset(0)
    for _ in range(20):
        q = rng.uniform(model.lowerPositionLimit, model.upperPositionLimit)
        world.data.qpos[: len(q)] = q
        mujoco.mj_kinematics(world.model, world.data)
        pinocchio.framesForwardKinematics(model, data, q)
        for name in frames:
            pose, body = data.oMf[model.getFrameId(name)], world.data.body(name)
            np.testing.assert_allclose(pose.translation, body.xpos, atol=1e-6)
            np.testing.assert_allclose(pose.rotation, body.xmat.reshape(3, 3), atol=1e-6)


def test_joint_limits_are_those_of_the_urdf(world):
    model = pinocchio.buildModelFromXML(xacro.process_file(str(URDF)).toxml())
    ranges = np.array([world.model.joint(name).range for name in panda.ARM_JOINTS])
    np.testing.assert_allclose(ranges, np.stack([model.lowerPositionLimit, model.upperPositionLimit], 1)[:7], atol=1e-9)


def test_reset_is_deterministic_and_seeds_differ(world):
    world.reset(3)
    first = world.objects["red"]
    for _ in range(5):
        world.step()
    world.reset(3)
    np.testing.assert_array_equal(world.objects["red"], first)
    world.reset(4)
    assert np.abs(world.objects["red"] - first).max() > 1e-3


def test_expert_lifts_and_the_arm_follows_droid_actions(world, expert):
    lifted = 0
    for seed in range(10):
        world.reset(seed)
        colour = list(CUBES)[seed % len(CUBES)]
        plan = expert.plan(world.objects, f"pick up the {colour} cube", world.state)
        for step in range(len(plan)):
            action = panda.velocity_action(plan[step], world.state)
            target = panda.joint_target(action, world.state)
            world.command(target)
            world.step()
            assert np.abs(world.state[:7] - target[:7]).max() < 0.02
        lifted += world.lifted(colour)
    assert lifted >= 9


def test_plans_stay_below_the_speed_limit(world, expert):
    world.reset(0)
    plan = expert.plan(world.objects, "lift the blue cube", world.state)
    assert np.abs(np.diff(plan[:, :7], axis=0)).max() * CONTROL_HZ <= TOP_SPEED * 1.01


def test_a_chunk_retraces_the_plan_and_rests_at_its_end(world, expert):
    world.reset(0)
    plan = expert.plan(world.objects, "lift the red cube", world.state)
    state = plan[10]
    for action in chunk(plan, 10, 8):
        state = panda.joint_target(action, state)
    np.testing.assert_allclose(state[:7], plan[18, :7], atol=1e-9)
    np.testing.assert_array_equal(chunk(plan, len(plan) + 5, 3)[:, :7], 0.0)


@pytest.mark.parametrize("prompt", ["pick up the cube", "the red and the blue cube", ""])
def test_a_prompt_must_name_one_cube(prompt):
    with pytest.raises(ValueError, match="red, green, blue"):
        cube_of(prompt)


@pytest.mark.parametrize("target", [np.zeros(7), np.append(np.zeros(7), np.nan)])
def test_a_wrong_command_is_refused(world, target):
    with pytest.raises(ValueError, match="8 finite numbers"):
        world.command(target)
