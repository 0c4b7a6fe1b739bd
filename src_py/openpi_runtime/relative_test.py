import dataclasses

import numpy as np
import pytest

from openpi_runtime.relative import action_state, base_state, relative_mask, to_absolute
from openpi_runtime.robots import load_robot

MASK = np.array([True, False, True])


def test_only_relative_columns_move() -> None:
    actions = np.array([[0.1, 0.5, 0.2]])
    assert to_absolute(actions, np.array([1.0, 2.0, 3.0]), MASK) == pytest.approx(np.array([[1.1, 0.5, 3.2]]))


def test_base_state_finds_relative_columns_in_the_state_by_joint() -> None:
    spec = load_robot("aloha")
    action = (dataclasses.replace(spec.action[1], kind="relative"), *spec.action[2:4])
    reversed_state = dataclasses.replace(spec, action=action, state=tuple(reversed(spec.state)))
    assert base_state(reversed_state, np.arange(14.0)).tolist() == [12.0, 0.0, 0.0]


def test_mask_from_columns() -> None:
    columns = load_robot("aloha").action
    assert not relative_mask(columns).any()
    assert relative_mask([dataclasses.replace(columns[0], kind="relative"), columns[1]]).tolist() == [True, False]


def test_the_state_in_the_order_of_the_actions() -> None:
    droid = load_robot("droid")
    turned = dataclasses.replace(droid, state=droid.state[:0:-1])  # from the gripper to the second joint
    assert action_state(turned, np.arange(7.0)).tolist() == [0.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]


def test_a_gripper_is_read_by_its_finger_and_no_other_joint_is() -> None:
    libero = load_robot("libero")
    state = np.array([0.4, 0.0, 1.0, 3.1, 0.0, 0.0, 0.04, -0.04])  # wholly open, which LIBERO calls -1
    assert action_state(libero, state) == pytest.approx([*state[:6], -1.0])
    unseen = dataclasses.replace(libero, state=libero.state[1:])
    assert action_state(unseen, state[1:]) == pytest.approx([0.0, *state[1:6], -1.0])
