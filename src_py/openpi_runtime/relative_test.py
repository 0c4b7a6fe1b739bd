import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from openpi_runtime.relative import reanchor, relative_mask, to_absolute, to_relative
from openpi_runtime.robots import load_robot

MASK = np.array([True, False, True])


def test_only_relative_columns_move() -> None:
    actions = np.array([[0.1, 0.5, 0.2]])
    assert to_absolute(actions, np.array([1.0, 2.0, 3.0]), MASK) == pytest.approx(np.array([[1.1, 0.5, 3.2]]))


@given(*(hnp.arrays(np.float64, shape, elements=st.floats(-3, 3)) for shape in ((4, 3), (3,), (3,))))
def test_reanchored_actions_keep_their_absolute_targets(actions: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
    moved = reanchor(actions, old, new, MASK)
    assert to_absolute(moved, new, MASK) == pytest.approx(to_absolute(actions, old, MASK), abs=1e-12)
    assert to_relative(to_absolute(actions, old, MASK), old, MASK) == pytest.approx(actions, abs=1e-12)


def test_mask_from_columns() -> None:
    columns = load_robot("aloha").action
    assert not relative_mask(columns).any()
    assert relative_mask([dataclasses.replace(columns[0], kind="relative"), columns[1]]).tolist() == [True, False]
