"""Orientations as policies are given them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64


def axis_angle(quaternion: Float[np.ndarray, 4] | Sequence[float]) -> Float64[np.ndarray, 3]:
    """Rotation vector [rad] of a unit quaternion (x, y, z, w).

    The angle is 2 acos(w), from 0 to 2 pi: q and -q give different vectors, as in the data that LIBERO policies were
    trained on, so it must not be folded to [0, pi].
    """
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    w = min(max(w, -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.array([x, y, z]) * (2.0 * math.acos(w) / sine)


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> Float64[np.ndarray, 4]:
    """Unit quaternion (x, y, z, w), w not negative, of a rotation matrix."""
    x, y, z = np.asarray(rotation, np.float64).T  # columns
    symmetric = np.array(
        [
            [x[0] - y[1] - z[2], y[0] + x[1], z[0] + x[2], y[2] - z[1]],
            [y[0] + x[1], y[1] - x[0] - z[2], z[1] + y[2], z[0] - x[2]],
            [z[0] + x[2], z[1] + y[2], z[2] - x[0] - y[1], x[1] - y[0]],
            [y[2] - z[1], z[0] - x[2], x[1] - y[0], x[0] + y[1] + z[2]],
        ]
    )
    best = np.linalg.eigh(symmetric)[1][:, -1]  # of the largest eigenvalue
    return best if best[3] >= 0 else -best
