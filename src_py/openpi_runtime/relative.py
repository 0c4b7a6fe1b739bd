"""Relative actions: offsets from the state a chunk was computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from openpi_runtime.robots import Column, RobotSpec


def relative_mask(columns: Sequence[Column]) -> Bool[np.ndarray, " d"]:
    """True for the columns that are offsets from the base state."""
    return np.array([column.kind == "relative" for column in columns])


def to_absolute(
    actions: Float64[np.ndarray, "h d"], base: Float64[np.ndarray, " d"], mask: Bool[np.ndarray, " d"]
) -> Float64[np.ndarray, "h d"]:
    """Adds the base state to the relative columns."""
    return actions + np.where(mask, base, 0.0)


def base_state(spec: RobotSpec, state: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " d"]:
    """What to add to an action computed from this state to make it absolute: 0 in columns that are not relative."""
    return np.where(relative_mask(spec.action), action_state(spec, state), 0.0)


def action_state(spec: RobotSpec, state: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " d"]:
    """The state in the order of the action columns: what each of them commands; 0 where the state does not show it."""
    readers = [state_reader(spec, column) for column in spec.action]
    return np.array([0.0 if read is None else read(state) for read in readers])


def state_reader(spec: RobotSpec, column: Column) -> Callable[[Float64[np.ndarray, " s"]], float] | None:
    """Reads an action column's joint out of a state, a gripper also by its finger; None where the state has neither."""
    place = {(shown.group, shown.joint): i for i, shown in enumerate(spec.state)}
    if (index := place.get((column.group, column.joint))) is not None:
        return lambda state: float(state[index])
    gripper = spec.group(column.group).gripper
    finger = place.get((column.group, gripper.state_joint)) if gripper and spec.is_gripper(column) else None
    if gripper is None or finger is None:
        return None
    opening, convention = gripper.calibration.position, spec.gripper_convention
    return lambda state: convention.at(opening.fraction(float(state[finger])))
