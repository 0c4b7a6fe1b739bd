import numpy as np
import pytest

from openpi_sim.motion import minimum_jerk

START, GOAL = np.array([0.0, 1.0]), np.array([1.0, 0.5])


def test_a_move_starts_and_ends_at_rest_on_its_goal():
    move = minimum_jerk(START, GOAL, seconds=2.0, top_speed=10.0, period_ns=20_000_000)
    speed = np.diff(move, axis=0, prepend=START[None]) / 0.02
    assert move.shape == (100, 2)
    np.testing.assert_array_equal(move[-1], GOAL)
    np.testing.assert_allclose(speed[[0, -1]], 0.0, atol=1e-3)
    np.testing.assert_allclose(move[49], (START + GOAL) / 2, atol=0.02)


@pytest.mark.parametrize("top_speed", [0.1, 0.5])
def test_a_move_that_would_be_too_fast_takes_longer(top_speed):
    move = minimum_jerk(START, GOAL, seconds=0.1, top_speed=top_speed, period_ns=20_000_000)
    fastest = np.abs(np.diff(move, axis=0)).max() / 0.02
    assert 0.98 * top_speed < fastest <= top_speed
