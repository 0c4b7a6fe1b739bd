"""First motion after a start, a HOLD or a jump: a slow approach to the moving target, never a step."""

from __future__ import annotations

import numpy as np

from openpi_runtime.safety import Vector

SLACK = 1e-6


class Ramp:
    """Limits speed until the command has caught up with its target."""

    def __init__(self, speed: Vector, period_s: float) -> None:
        """speed: per column and second, in the columns' own units."""
        self._reach = speed * period_s
        self._previous: Vector | None = None
        self.active = False

    def start(self) -> None:
        """Begins a ramp at the next step."""
        self.active = True
        self._previous = None

    def step(self, last: Vector, target: Vector) -> Vector:
        """The next command. The ramp ends when what is left is one ramp step beyond the target's own motion."""
        if not self.active:
            return target
        own = np.zeros_like(target) if self._previous is None else np.abs(target - self._previous)
        self._previous = target
        if (np.abs(target - last) <= self._reach + own + SLACK).all():
            self.active = False
            return target
        return last + np.clip(target - last, -self._reach, self._reach)
