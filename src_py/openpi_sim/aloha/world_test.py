import numpy as np
import pytest

from openpi_sim.aloha import arms
from openpi_sim.aloha.tasks import insertion_reward, transfer_cube_reward
from openpi_sim.aloha.world import AlohaWorld

LEFT_FINGER, RIGHT_FINGER = "vx300s_left/10_left_gripper_finger", "vx300s_right/10_right_gripper_finger"


@pytest.fixture(scope="module")
def world() -> AlohaWorld:
    return AlohaWorld()


def test_reset_with_one_seed_gives_one_episode(world):
    runs = []
    for _ in range(2):
        world.reset(5)
        world.command(arms.start_state() + 0.1)
        for _ in range(20):
            world.step()
        runs.append(np.concatenate([world.state, world.objects["box"]]))
    np.testing.assert_array_equal(runs[0], runs[1])


def test_seeds_differ(world):
    world.reset(1)
    first = world.objects["box"]
    world.reset(2)
    assert np.abs(first - world.objects["box"]).max() > 0.01


def test_the_arms_start_where_they_are_told_to_and_stay(world):
    world.reset(0)
    np.testing.assert_allclose(world.state, arms.start_state(), atol=1e-9)
    for _ in range(50):
        world.step()
    np.testing.assert_allclose(world.state, arms.start_state(), atol=0.02)
    assert world.data.time == pytest.approx(1.0)


def test_a_command_moves_the_joint_it_names(world):
    world.reset(0)
    target = arms.start_state()
    target[7] += 0.3  # right waist
    target[6] = 0.8  # left gripper
    world.command(target)
    for _ in range(100):
        world.step()
    moved = world.state - arms.start_state()
    assert moved[7] == pytest.approx(0.3, abs=0.02)
    assert world.state[6] == pytest.approx(0.8, abs=0.02)
    assert np.abs(np.delete(moved, [6, 7])).max() < 0.03


def test_readings_are_in_the_drivers_names_and_units(world):
    world.reset(0)
    readings = world.readings()
    assert list(readings) == ["left", "right"]
    right = readings["right"]
    assert right.names == (*arms.ARM_JOINTS, "gripper", "left_finger", "right_finger")
    np.testing.assert_array_equal(right.position[:6], world.state[7:13])
    assert right.position[6] == pytest.approx(arms.gripper_to_motor(world.state[13]))
    assert right.position[7] == -right.position[8] == pytest.approx(arms.gripper_to_finger(world.state[13]))
    assert right.velocity.shape == right.effort.shape == (9,)


def test_controllers_hold_the_start_pose(world):
    targets = [controller.target(10**9) for controller in world.controllers().values()]
    np.testing.assert_array_equal(np.concatenate(targets), arms.start_state())


@pytest.mark.parametrize("target", [np.zeros(13), np.full(14, np.nan)])
def test_a_bad_command_is_refused_by_value(world, target):
    with pytest.raises(ValueError, match="command"):
        world.command(target)


def test_an_unknown_task_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'stack'.*transfer_cube, insertion"):
        AlohaWorld("stack")


@pytest.mark.parametrize(
    ("touching", "reward"),
    [
        ([("red_box", "table")], 0),
        ([("red_box", RIGHT_FINGER), ("red_box", "table")], 1),
        ([(RIGHT_FINGER, "red_box")], 2),
        ([("red_box", LEFT_FINGER), ("red_box", "table")], 3),
        ([("red_box", LEFT_FINGER)], 4),
    ],
)
def test_transfer_cube_rewards(touching, reward):
    assert transfer_cube_reward({frozenset(pair) for pair in touching}) == reward


@pytest.mark.parametrize(
    ("touching", "reward"),
    [
        ([("red_peg", "table")], 0),
        ([("red_peg", RIGHT_FINGER), ("socket-2", LEFT_FINGER), ("red_peg", "table")], 1),
        ([("red_peg", RIGHT_FINGER), ("socket-2", LEFT_FINGER)], 2),
        ([("red_peg", "socket-1")], 3),
        ([("red_peg", "socket-1"), ("socket-1", "table")], 0),
        ([("red_peg", "pin")], 4),
    ],
)
def test_insertion_rewards(touching, reward):
    assert insertion_reward({frozenset(pair) for pair in touching}) == reward
