"""First motion after a start, a HOLD or a jump: a slow approach to the moving target, never a step."""

from __future__ import annotations

import numpy as np

from openpi_runtime.safety import Vector, bounded

SLACK = 1e-6
# In this time the ramp comes to follow its target's own motion as well. Without that, a target that moves faster
# than the ramp would never be reached; from the first moment on, it would be no ramp.
FOLLOW_S = 0.5


class Ramp:
    """Limits speed until the command has caught up with its target.

    The limit is `speed`, plus a share of the target's own speed that grows from 0 to 1 in `FOLLOW_S`; `top` at most.
    """

    def __init__(self, speed: Vector, top: Vector, period_s: float) -> None:
        """speed, top: per column and second, in the columns' own units."""
        self._reach = speed * period_s
        self._top = top * period_s
        self._share_per_step = period_s / FOLLOW_S
        self._share = 0.0
        self._previous: Vector | None = None
        self.active = False

    def start(self) -> None:
        """Begins a ramp at the next step, from rest."""
        self.active = True
        self._share = 0.0
        self._previous = None

    def catch_up(self) -> None:
        """The same for a robot that moves with its target, but has fallen behind. A ramp that is active goes on."""
        if not self.active:
            self.active = True
            self._share = 1.0

    def step(self, last: Vector, target: Vector) -> Vector:
        """The next command. The ramp ends where the target is within its limit."""
        previous, self._previous = self._previous, target
        if not self.active:
            return target
        own = np.zeros_like(target) if previous is None else np.abs(target - previous)
        limit = np.minimum(self._reach + self._share * own, self._top)
        self._share = min(1.0, self._share + self._share_per_step)
        if (np.abs(target - last) <= limit + SLACK).all():
            self.active = False
            return target
        return last + bounded(target - last, -limit, limit)
