"""How scripted experts move from pose to pose."""

import math

import numpy as np
from jaxtyping import Float

_PEAK_OVER_MEAN_SPEED = 1.875  # of a minimum-jerk move


def minimum_jerk(
    start: Float[np.ndarray, " joints"],
    goal: Float[np.ndarray, " joints"],
    *,
    seconds: float,
    top_speed: float,
    period_ns: int,
) -> Float[np.ndarray, "steps joints"]:
    """From after `start` up to `goal`, at rest at both ends (Flash & Hogan 1985), one row a period.

    Takes `seconds`, or longer where `top_speed` (per second, of the fastest joint) asks for it.
    """
    seconds = max(seconds, _PEAK_OVER_MEAN_SPEED * float(np.abs(goal - start).max()) / top_speed)
    steps = math.ceil(seconds * 1e9 / period_ns)
    s = np.arange(1, steps + 1)[:, None] / steps
    return start + (goal - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)
