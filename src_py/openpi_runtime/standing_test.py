import dataclasses

import numpy as np
import pytest

from openpi_runtime.robots import RobotSpec, load_robot
from openpi_runtime.standing import StandingAction


def test_positions_stay(twin: RobotSpec) -> None:
    state = np.array([0.1, 0.5, -0.2, 1.0])
    assert StandingAction(twin).at(state).tolist() == state.tolist()


def test_the_order_of_the_columns_does_not_matter(twin: RobotSpec) -> None:
    spec = dataclasses.replace(twin, state=twin.state[::-1])
    assert StandingAction(spec).at(np.array([1.0, -0.2, 0.5, 0.1])).tolist() == [0.1, 0.5, -0.2, 1.0]


def test_velocities_are_zero_and_the_gripper_stays() -> None:
    state = np.array([*np.linspace(-1, 1, 7), 0.7])
    assert StandingAction(load_robot("droid")).at(state) == pytest.approx([*[0.0] * 7, 0.7])


def test_a_gripper_that_is_measured_by_its_finger_stays() -> None:
    state = np.array([0.4, 0.0, 1.0, 3.1, 0.0, 0.0, 0.04, -0.04])  # wholly open, which LIBERO calls -1
    assert StandingAction(load_robot("libero")).at(state) == pytest.approx([*[0.0] * 6, -1.0])


def test_a_gripper_measured_beyond_its_ends_is_at_its_end(twin: RobotSpec) -> None:
    assert StandingAction(twin).at(np.array([2.0, 1.1, -0.2, -0.1])).tolist() == [2.0, 1.0, -0.2, 0.0]


def test_what_is_not_measured_is_a_sentence(twin: RobotSpec) -> None:
    with pytest.raises(ValueError, match="the action 'left_elbow' is a position of 'elbow', which is not in the state"):
        StandingAction(dataclasses.replace(twin, state=twin.state[1:]))
