"""The action that keeps a robot where it is, whatever its columns mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from openpi_runtime.robots import Column, RobotSpec
from openpi_runtime.safety import Vector


class StandingAction:
    """Positions for columns of positions, zeros for columns of velocities, deltas and relative positions."""

    def __init__(self, spec: RobotSpec) -> None:
        """Raises ValueError where a column asks for a position that the state does not hold."""
        self._spec = spec
        self._place = {(column.group, column.joint): i for i, column in enumerate(spec.state)}
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
        """Where the column's joint is, from the state; a gripper also by its finger."""
        if (index := self._place.get((column.group, column.joint))) is not None:
            return lambda state: float(state[index])
        gripper = self._spec.group(column.group).gripper
        finger = self._place.get((column.group, gripper.state_joint)) if gripper else None
        if gripper is None or finger is None:
            raise ValueError(
                f"Nobody knows how robot '{self._spec.name}' stays where it is: the action {column.name!r} is a "
                f"position of {column.joint!r}, which is not in the state; choose another policy."
            )
        opening, convention = gripper.calibration.position, self._spec.gripper_convention
        return lambda state: convention.at(opening.fraction(float(state[finger])))
