import numpy as np
import pytest

from openpi_sim.controller import JointController

JOINTS = ("a", "b", "c", "d", "e", "f", "gripper")
START = np.zeros(7)
GOAL = np.arange(7.0)


@pytest.fixture
def controller() -> JointController:
    return JointController(JOINTS, START)


def test_it_holds_its_start(controller):
    np.testing.assert_array_equal(controller.target(10**12), START)


def test_a_forward_command_is_the_target_at_once(controller):
    controller.forward(GOAL.tolist())
    np.testing.assert_array_equal(controller.target(0), GOAL)


def test_a_trajectory_is_interpolated_from_the_target_and_held_at_its_end(controller):
    controller.follow(100, JOINTS, [200, 300], [GOAL, 3 * GOAL])
    np.testing.assert_allclose(controller.target(150), 0.5 * GOAL)
    np.testing.assert_allclose(controller.target(250), 2 * GOAL)
    np.testing.assert_allclose(controller.target(1000), 3 * GOAL)


def test_a_new_trajectory_starts_where_the_old_one_has_brought_it(controller):
    controller.follow(0, JOINTS, [100], [GOAL])
    controller.follow(50, JOINTS, [150], [START])
    np.testing.assert_allclose(controller.target(50), 0.5 * GOAL)
    np.testing.assert_allclose(controller.target(150), START)


def test_a_point_in_the_past_is_the_target_at_once(controller):
    controller.follow(500, JOINTS, [100], [GOAL])
    np.testing.assert_allclose(controller.target(500), GOAL)


def test_joints_are_matched_by_name(controller):
    controller.follow(0, JOINTS[::-1], [0], [GOAL[::-1]])
    np.testing.assert_allclose(controller.target(0), GOAL)


@pytest.mark.parametrize(
    ("joints", "times", "points", "why"),
    [
        (JOINTS[:6], [0], [GOAL[:6]], "must name"),
        (("a", *JOINTS[:6]), [0], [GOAL], "must name"),
        (JOINTS, [], [], "at least one point"),
        (JOINTS, [5, 5], [GOAL, GOAL], "must rise"),
        (JOINTS, [0], [GOAL[:5]], "7 finite"),
        (JOINTS, [0], [GOAL * np.nan], "7 finite"),
    ],
)
def test_bad_trajectories_are_refused_and_change_nothing(controller, joints, times, points, why):
    with pytest.raises(ValueError, match=why):
        controller.follow(0, joints, times, points)
    np.testing.assert_array_equal(controller.target(10), START)
