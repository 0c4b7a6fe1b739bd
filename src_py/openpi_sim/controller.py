"""Controllers of simulated joints: what the command topics of a real robot do, without ROS."""

import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float


class Controller(Protocol):
    """Turns the commands to one group into what it is to do, step by step."""

    def forward(self, values: Sequence[float]) -> None:
        """Take a command without times, in the group's order and units.

        Raises:
            ValueError: there are too few or too many values, or one is not finite.
        """

    def follow(
        self, now_ns: int, joints: Sequence[str], times_ns: Sequence[int], positions: Sequence[Sequence[float]]
    ) -> None:
        """Take a trajectory: `positions` with a column for each of `joints`, due at `times_ns`.

        Raises:
            ValueError: it does not fit the group.
        """

    def target(self, now_ns: int) -> Float[np.ndarray, " joints"]:
        """The group's part of the command for the step that ends now. Called once a step."""


class JointController:
    """Positions of joints, in whatever units the group is commanded in; holds the last one."""

    def __init__(self, joints: Sequence[str], start: Float[np.ndarray, " joints"]) -> None:
        """joints: their names, in the order of positions. start: held until a command comes."""
        self._joints = tuple(joints)
        self._hold(np.array(start, np.float64))

    def forward(self, values: Sequence[float]) -> None:
        """Make these positions the target at once.

        Raises:
            ValueError: there is not one for each joint, or one is not finite.
        """
        self._hold(self._checked(values))

    def follow(
        self, now_ns: int, joints: Sequence[str], times_ns: Sequence[int], positions: Sequence[Sequence[float]]
    ) -> None:
        """Follow a trajectory from the present target: linear between its points, and hold the last one.

        Args:
            now_ns: the present time.
            joints: names of the columns of `positions`, in any order, each of the group's once.
            times_ns: when each point is due, rising.
            positions: the points.

        Raises:
            ValueError: a joint is missing, unknown or twice, a point has another size or is not finite, the times
                do not rise, or there is no point.
        """
        if sorted(joints) != sorted(self._joints):
            raise ValueError(f"A trajectory must name {', '.join(self._joints)}; this one names {', '.join(joints)}.")
        if not positions:
            raise ValueError("A trajectory needs at least one point; this one has none.")
        if any(later <= earlier for earlier, later in itertools.pairwise(times_ns)):
            raise ValueError("The points of a trajectory must rise in time_from_start; these do not.")
        order = [list(joints).index(name) for name in self._joints]
        points = [self._checked(point)[order] for point in positions]
        here = self.target(now_ns)
        self._times_ns = np.array([min(now_ns, times_ns[0] - 1), *times_ns], np.float64)
        self._positions = np.stack([here, *points])

    def target(self, now_ns: int) -> Float[np.ndarray, " joints"]:
        """Where the joints are to be at `now_ns`."""
        return np.array([np.interp(now_ns, self._times_ns, column) for column in self._positions.T])

    def _hold(self, positions: Float[np.ndarray, " joints"]) -> None:
        self._times_ns = np.zeros(1)
        self._positions = positions[None]

    def _checked(self, positions: Sequence[float]) -> Float[np.ndarray, " joints"]:
        values = np.array(positions, np.float64)
        if values.shape != (len(self._joints),) or not np.isfinite(values).all():
            raise ValueError(f"A command needs {len(self._joints)} finite positions; this one has {values.tolist()}.")
        return values
