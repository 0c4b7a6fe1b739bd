"""From a policy's action to joint targets: what a robot's columns mean besides plain positions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from openpi_runtime.robots import RobotSpec
from openpi_runtime.safety import Vector


class ActionConvention:
    """Turns one action into the command it asks for.

    Columns of the kind "velocity" are fractions of `spec.velocity_step`, moved from the measured position in one
    control step (DROID: 0.2 rad); if any exceeds 1 in magnitude, all are scaled so that the largest is 1 and the
    direction of motion stays. Grippers with a threshold are commanded wholly open or wholly closed. Every other column
    is a target as it is.
    """

    def __init__(self, spec: RobotSpec) -> None:
        self._velocity = np.array([column.kind == "velocity" for column in spec.action])
        self._by_velocity = bool(self._velocity.any())
        self._step = spec.velocity_step
        self._binary = [
            (index, gripper.threshold)
            for index, column in enumerate(spec.action)
            if (gripper := spec.group(column.group).gripper) is not None
            and spec.is_gripper(column)
            and gripper.threshold is not None
        ]
        self._ends = sorted((spec.gripper_convention.closed, spec.gripper_convention.open))

    def target(self, action: Vector, measured: Vector) -> Vector:
        """The command [d] for an action [d] at the measured positions [d], in the columns' own units."""
        target = np.array(action, dtype=np.float64)
        if self._by_velocity:
            velocity = target[self._velocity]
            velocity /= max(1.0, float(np.abs(velocity).max()))
            target[self._velocity] = measured[self._velocity] + self._step * velocity
        for index, threshold in self._binary:
            target[index] = self._ends[int(action[index] > threshold)]
        return target

    def action(self, target: Vector, measured: Vector) -> Vector:
        """The action [d] that `target` makes of a command [d], as far as velocities up to 1 reach."""
        action = np.array(target, dtype=np.float64)
        if self._by_velocity:
            action[self._velocity] = (target - measured)[self._velocity] / self._step
        return action

    def slowed(self, target: Vector, measured: Vector, last: Vector, reach: Vector) -> Vector:
        """The target [d], or one nearer to the measured position where a velocity column cannot get so far in a step.

        DROID's convention lets a joint move 0.2 rad in 1/15 s, which is 3 rad/s and more than a Panda's joints can do.
        All velocity columns shrink by the same share, so that the direction of motion stays, until each is within
        `reach` [d] of the last command. The target itself is returned where nothing has to shrink.
        """
        if not self._by_velocity:
            return target
        columns = self._velocity & (target != measured)
        move, lag = (target - measured)[columns], (measured - last)[columns]
        share = np.min((reach[columns] - np.sign(move) * lag) / np.abs(move), initial=1.0)
        if not share < 1.0:  # a NaN is not for this method to hide
            return target
        result = target.copy()
        result[columns] = measured[columns] + max(0.0, float(share)) * move
        return result

    def path(self, actions: Float64[np.ndarray, "h d"], measured: Vector) -> Float64[np.ndarray, "h d"]:
        """The targets of a chunk whose every step leads to where it is to lead, begun at the measured positions."""
        targets = []
        for action in actions:
            measured = self.target(action, measured)
            targets.append(measured)
        return np.stack(targets)
