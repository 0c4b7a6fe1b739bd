"""Speeds for controllers that take velocities instead of positions."""

from __future__ import annotations

import numpy as np

from openpi_runtime.robots import RobotSpec
from openpi_runtime.safety import Limits, Vector

# Share of the distance to the command that is made up per second. With delays of up to 0.2 s between a joint state and
# its effect this neither overshoots nor swings.
_GAIN = 3.0


class VelocityServo:
    """Leads a robot along its commands by speeds: the command's own, plus a correction of what the robot is behind.

    Without the correction each tick's error would stay for ever. Columns of the kind "velocity" have nothing to make
    up: their command starts at the measured position, so their speed is what leads to it in one period.
    """

    def __init__(self, spec: RobotSpec, limits: Limits) -> None:
        self._limits = limits
        self._period_s = spec.period_ns / 1e9
        velocities = [column.kind == "velocity" for column in spec.action]
        self._gain = np.where(velocities, 1 / self._period_s, _GAIN)

    def speed(self, command: Vector, velocity: Vector, measured: Vector) -> Vector:
        """Speeds [d] per second, within the velocity limits, that lead past no position limit in one period.

        Args:
            command, velocity: [d] the command of this tick and its difference to the last one per second.
            measured: [d] where the robot is.
        """
        limits = self._limits
        behind = command - velocity * self._period_s - measured
        wanted = np.clip(velocity + self._gain * behind, -limits.velocity, limits.velocity)
        down = np.minimum(0.0, (limits.lower - measured) / self._period_s)
        up = np.maximum(0.0, (limits.upper - measured) / self._period_s)
        return np.clip(wanted, down, up)
