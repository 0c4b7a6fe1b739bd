import numpy as np
import pytest

from openpi_runtime.rotations import axis_angle, quaternion


@pytest.mark.parametrize(
    ("turn", "vector"),
    [
        ((0, 0, 0, 1), (0, 0, 0)),
        ((0, 0, np.sin(0.3), np.cos(0.3)), (0, 0, 0.6)),
        ((0, 0, -np.sin(0.3), -np.cos(0.3)), (0, 0, -(2 * np.pi - 0.6))),  # -q: the long way round
        ((1, 0, 0, 0), (np.pi, 0, 0)),
    ],
)
def test_axis_angle(turn, vector):
    np.testing.assert_allclose(axis_angle(turn), vector, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_quaternion_of_a_matrix(seed):
    x, y, z, w = expected = np.random.default_rng(seed).normal(size=4)
    expected /= np.linalg.norm(expected) * np.sign(w)
    x, y, z, w = expected
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    np.testing.assert_allclose(quaternion(np.array(rotation)), expected, atol=1e-12)
