import numpy as np
import pytest

from openpi_runtime.rotations import axis_angle


@pytest.mark.parametrize(
    ("quaternion", "vector"),
    [
        ((0, 0, 0, 1), (0, 0, 0)),
        ((0, 0, np.sin(0.3), np.cos(0.3)), (0, 0, 0.6)),
        ((0, 0, -np.sin(0.3), -np.cos(0.3)), (0, 0, -(2 * np.pi - 0.6))),  # -q: the long way round
        ((1, 0, 0, 0), (np.pi, 0, 0)),
    ],
)
def test_axis_angle(quaternion, vector):
    np.testing.assert_allclose(axis_angle(quaternion), vector, atol=1e-12)
