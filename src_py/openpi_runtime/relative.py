"""Relative actions: offsets from the state a chunk was computed from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from openpi_runtime.robots import Column


def relative_mask(columns: Sequence[Column]) -> Bool[np.ndarray, " d"]:
    """True for the columns that are offsets from the base state."""
    return np.array([column.kind == "relative" for column in columns])


def to_absolute(
    actions: Float64[np.ndarray, "h d"], base: Float64[np.ndarray, " d"], mask: Bool[np.ndarray, " d"]
) -> Float64[np.ndarray, "h d"]:
    """Adds the base state to the relative columns."""
    return actions + np.where(mask, base, 0.0)


def to_relative(
    actions: Float64[np.ndarray, "h d"], base: Float64[np.ndarray, " d"], mask: Bool[np.ndarray, " d"]
) -> Float64[np.ndarray, "h d"]:
    """Subtracts the base state from the relative columns; the inverse of `to_absolute`."""
    return actions - np.where(mask, base, 0.0)


def reanchor(
    actions: Float64[np.ndarray, "h d"],
    old_base: Float64[np.ndarray, " d"],
    new_base: Float64[np.ndarray, " d"],
    mask: Bool[np.ndarray, " d"],
) -> Float64[np.ndarray, "h d"]:
    """The same absolute targets as `actions` from old_base, written relative to new_base."""
    return to_relative(to_absolute(actions, old_base, mask), new_base, mask)
