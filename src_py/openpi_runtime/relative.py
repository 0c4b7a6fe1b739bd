"""Relative actions: offsets from the state a chunk was computed from."""

from __future__ import annotations

from collections.abc import Sequence

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
    place = {(column.group, column.joint): i for i, column in enumerate(spec.state)}
    columns = [place.get((column.group, column.joint)) for column in spec.action]
    return np.array([0.0 if column is None else state[column] for column in columns])
