"""A scripted expert for libero_spatial: it grasps the black bowl by its rim and puts it on the plate.

It reads object positions that only a simulator knows. It is what proves the benchmark runner without weights, and
what moves the simulated robot before a policy is trained; it does not solve every task (see docs/libero.md).
"""

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openpi_sim.libero.world import Frame

METRES_PER_UNIT: Final = 0.05
"""Position delta that an action of 1 asks the controller for."""

OPEN: Final = -1.0
CLOSE: Final = 1.0

RIM: Final = np.array([0.0, -0.045, 0.03])
"""From the bowl's origin to where the fingers close on its rim [m]; the hand opens along y."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Where the hand goes next, and what the fingers do on the way.

    Attributes:
        target: position of the end effector [m], world frame.
        grip: OPEN or CLOSE.
        tolerance: distance [m] at which it counts as reached.
        wait: further steps to stay there, for the fingers to move.
    """

    target: NDArray[np.float64]
    grip: float
    tolerance: float = 0.01
    wait: int = 0


class PickAndPlaceExpert:
    """Moves from waypoint to waypoint with a proportional controller, chunk by chunk or step by step."""

    def __init__(self, frame: Frame, *, gain: float = 1.0, rim: NDArray[np.float64] = RIM) -> None:
        """Plans from the first frame of an episode.

        Args:
            frame: the settled scene; needs `akita_black_bowl_1` and `plate_1` among its objects.
            gain: share of the remaining distance that one step asks for.
            rim: from the bowl's origin to the grasp point [m].

        Raises:
            ValueError: the scene has no such objects.
        """
        missing = {"akita_black_bowl_1", "plate_1"} - set(frame.objects)
        if missing:
            raise ValueError(f"The expert moves the black bowl to the plate; this scene lacks {sorted(missing)}.")
        self._gain = gain
        self._waypoints = _plan(frame.objects["akita_black_bowl_1"], frame.objects["plate_1"], rim, frame.state[:3])
        self._waited = 0

    def act(self, frame: Frame) -> NDArray[np.float64]:
        """The next action [7]; stays with the fingers open once everything is done."""
        while len(self._waypoints) > 1 and self._reached(frame):
            self._waypoints.pop(0)
            self._waited = 0
        waypoint = self._waypoints[0]
        delta = (waypoint.target - frame.state[:3]) / METRES_PER_UNIT * self._gain
        return np.concatenate([np.clip(delta, -1.0, 1.0), np.zeros(3), [waypoint.grip]])

    def _reached(self, frame: Frame) -> bool:
        waypoint = self._waypoints[0]
        if np.linalg.norm(waypoint.target - frame.state[:3]) > waypoint.tolerance and self._waited == 0:
            return False
        self._waited += 1
        return self._waited > waypoint.wait


def _plan(
    bowl: NDArray[np.float64], plate: NDArray[np.float64], rim: NDArray[np.float64], hand: NDArray[np.float64]
) -> list[Waypoint]:
    grasp = bowl + rim
    carry_height = max(grasp[2], plate[2]) + 0.2
    place = plate + rim * [1, 1, 0] + [0.0, 0.0, rim[2] + 0.03]

    def above(point: NDArray[np.float64], height: float) -> NDArray[np.float64]:
        return np.array([point[0], point[1], height])

    return [
        Waypoint(target=above(grasp, max(hand[2], grasp[2] + 0.12)), grip=OPEN),
        Waypoint(target=above(grasp, grasp[2] + 0.06), grip=OPEN),
        Waypoint(target=grasp, grip=OPEN, tolerance=0.008, wait=2),
        Waypoint(target=grasp, grip=CLOSE, tolerance=1.0, wait=12),
        Waypoint(target=above(grasp, carry_height), grip=CLOSE, tolerance=0.03),
        Waypoint(target=above(place, carry_height), grip=CLOSE, tolerance=0.015),
        Waypoint(target=place, grip=CLOSE, tolerance=0.012),
        Waypoint(target=place, grip=OPEN, tolerance=1.0, wait=8),
        Waypoint(target=above(place, carry_height), grip=OPEN),
    ]
