"""One arm's joint controller: what the command topics of the real arm do, without ROS."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from openpi_sim.aloha import arms


class ArmController:
    """Turns commands to one arm into its target at any time. Positions are [7]: joints in rad, gripper 0 to 1."""

    def __init__(self, joints: Sequence[str], start: Float[np.ndarray, "7"]) -> None:
        """joints: names of the seven, in the order of positions."""
        self._joints = tuple(joints)
        self.hold(start)

    def hold(self, positions: Float[np.ndarray, "7"]) -> None:
        """Make `positions` the target, and forget every command."""
        self._times_ns = np.zeros(1)
        self._positions = np.array(positions, np.float64)[None]

    def forward(self, positions: Sequence[float]) -> None:
        """Make `positions` the target at once.

        Raises:
            ValueError: there are not seven, or one is not finite.
        """
        self.hold(_checked(positions))

    def follow(
        self, now_ns: int, joints: Sequence[str], times_ns: Sequence[int], positions: Sequence[Sequence[float]]
    ) -> None:
        """Follow a trajectory from the present target: linear between its points, and hold the last one.

        Args:
            now_ns: the present time.
            joints: names of the columns of `positions`, in any order, each of the arm's once.
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
        points = [_checked(point)[order] for point in positions]
        here = self.target(now_ns)
        self._times_ns = np.array([min(now_ns, times_ns[0] - 1), *times_ns], np.float64)
        self._positions = np.stack([here, *points])

    def target(self, now_ns: int) -> Float[np.ndarray, "7"]:
        """Where the arm is to be at `now_ns`."""
        return np.array([np.interp(now_ns, self._times_ns, column) for column in self._positions.T])


def _checked(positions: Sequence[float]) -> Float[np.ndarray, "7"]:
    values = np.array(positions, np.float64)
    if values.shape != (arms.ARM_DIM,) or not np.isfinite(values).all():
        raise ValueError(f"A command needs {arms.ARM_DIM} finite positions; this one has {values.tolist()}.")
    return values
