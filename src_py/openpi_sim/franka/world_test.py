import contextlib
from pathlib import Path

import numpy as np
import pinocchio
import pytest
import xacro

from openpi_runtime.conventions import ActionConvention
from openpi_runtime.robots import load_robot
from openpi_sim.cameras import optical_pose
from openpi_sim.franka import panda
from openpi_sim.franka.expert import CUBES, TOP_SPEED, Expert, cube_of
from openpi_sim.franka.world import CONTROL_HZ, FrankaWorld
from openpi_sim.gl import mujoco

URDF = Path(__file__).parents[3] / "urdf/panda.urdf.xacro"


@pytest.fixture(scope="module")
def world():
    return FrankaWorld(URDF)


@pytest.fixture(scope="module")
def expert():
    return Expert(URDF)


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


def test_readings_are_in_the_drivers_names_and_units(world):
    world.reset(0)
    reading = world.readings()["arm"]
    assert reading.names == (*panda.ARM_JOINTS, "panda_finger_joint1", "panda_finger_joint2")
    np.testing.assert_array_equal(reading.position[:7], world.state[:7])
    np.testing.assert_allclose(reading.position[7:], 0.04, atol=1e-6)
    assert reading.velocity.shape == reading.effort.shape == (9,)


def test_the_controller_holds_the_start_pose(world):
    world.reset(0)
    (controller,) = world.controllers().values()
    np.testing.assert_allclose(controller.target(10**9), world.state, atol=1e-9)


def test_both_cameras_see_the_cubes_of_their_colour(world):
    world.reset(0)
    with contextlib.closing(world.open_cameras(("exterior", "wrist"))) as cameras:
        exterior = cameras.render("exterior").astype(int)
        wrist = cameras.render("wrist")
    assert exterior.shape == wrist.shape == (480, 640, 3)
    camera = np.linalg.inv(optical_pose(world.data, "exterior"))
    for number, name in enumerate(("red", "green", "blue")):
        place = world.intrinsics("exterior", 640, 480).matrix @ (camera @ [*world.objects[name][:3], 1.0])[:3]
        column, row = (place[:2] / place[2]).round().astype(int)
        assert exterior[row, column].argmax() == number, name


def test_only_the_cube_of_the_task_counts():
    world = FrankaWorld(URDF, "green")
    assert (world.success, world.reward) == (False, 0.0)
    for name, success in (("red", False), ("green", True)):
        world.data.joint(name).qpos[2] = 0.3
        mujoco.mj_forward(world.model, world.data)
        assert world.success is success
    with pytest.raises(ValueError, match=r"no 'pink' cube\. Cubes: red, green, blue"):
        FrankaWorld(URDF, "pink")


def test_expert_lifts_and_the_arm_follows_droid_actions(world, expert):
    convention = ActionConvention(load_robot("droid"))
    lifted = 0
    for seed in range(10):
        world.reset(seed)
        colour = list(CUBES)[seed % len(CUBES)]
        plan = expert.plan(world.objects, f"pick up the {colour} cube", world.state)
        for step in range(len(plan)):
            action = convention.action(plan[step], world.state)
            target = convention.target(action, world.state)
            world.command(target)
            world.step()
            assert np.abs(world.state[:7] - target[:7]).max() < 0.02
        lifted += world.lifted(colour)
    assert lifted >= 9


def test_plans_stay_below_the_speed_limit(world, expert):
    world.reset(0)
    plan = expert.plan(world.objects, "lift the blue cube", world.state)
    assert np.abs(np.diff(plan[:, :7], axis=0)).max() * CONTROL_HZ <= TOP_SPEED * 1.01


@pytest.mark.parametrize("prompt", ["pick up the cube", "the red and the blue cube", ""])
def test_a_prompt_must_name_one_cube(prompt):
    with pytest.raises(ValueError, match="red, green, blue"):
        cube_of(prompt)


@pytest.mark.parametrize("target", [np.zeros(7), np.append(np.zeros(7), np.nan)])
def test_a_wrong_command_is_refused(world, target):
    with pytest.raises(ValueError, match="8 finite numbers"):
        world.command(target)
