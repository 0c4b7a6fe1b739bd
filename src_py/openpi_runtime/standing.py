"""The action that keeps a robot where it is, whatever its columns mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from openpi_runtime.relative import state_reader
from openpi_runtime.robots import Column, RobotSpec
from openpi_runtime.safety import Vector


class StandingAction:
    """Positions for columns of positions, zeros for columns of velocities, deltas and relative positions."""

    def __init__(self, spec: RobotSpec) -> None:
        """Raises ValueError where a column asks for a position that the state does not hold."""
        self._spec = spec
        self._parts = [self._part(column) for column in spec.action]

    def at(self, state: Vector) -> Vector:
        """The action [d] that keeps the robot in a state [n]."""
        return np.array([part(state) for part in self._parts])

    def _part(self, column: Column) -> Callable[[Vector], float]:
        if column.kind != "absolute":
            return lambda state: 0.0
        read = self._reading(column)
        if not self._spec.is_gripper(column):
            return read
        low, high = sorted((self._spec.gripper_convention.closed, self._spec.gripper_convention.open))
        return lambda state: min(max(read(state), low), high)  # a finger is easily measured a little beyond its ends

    def _reading(self, column: Column) -> Callable[[Vector], float]:
        read = state_reader(self._spec, column)
        if read is None:
            raise ValueError(
                f"Nobody knows how robot '{self._spec.name}' stays where it is: the action {column.name!r} is a "
                f"position of {column.joint!r}, which is not in the state; choose another policy."
            )
        return read
