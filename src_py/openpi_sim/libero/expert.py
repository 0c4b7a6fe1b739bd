"""A scripted expert for libero_spatial: it grasps the black bowl by its rim and puts it on the plate.

It reads object positions that only a simulator knows. It is what proves the benchmark runner without weights, and
what moves the simulated robot before a policy is trained; it does not solve every task (see docs/libero.md).
"""

import copy
import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

from openpi_runtime.robots import RobotSpec
from openpi_sim.script import Scene

METRES_PER_UNIT: Final = 0.05
"""Position delta that an action of 1 asks the controller for."""

RESPONSE: Final = 0.2
"""Part of a delta that the hand moves within the step it is commanded for, about."""

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
    """Moves from waypoint to waypoint with a proportional controller, step by step or chunk by chunk."""

    def __init__(
        self,
        bowl: NDArray[np.float64],
        plate: NDArray[np.float64],
        hand: NDArray[np.float64],
        *,
        gain: float = 1.0,
        rim: NDArray[np.float64] = RIM,
    ) -> None:
        """Plans an episode of a settled scene.

        Args:
            bowl: position of the bowl [m], world frame.
            plate: where it belongs.
            hand: where the end effector is.
            gain: share of the remaining distance that one step asks for.
            rim: from the bowl's origin to the grasp point [m].
        """
        self._gain = gain
        self._waypoints = _plan(bowl, plate, rim, hand)
        self._waited = 0

    def act(self, hand: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next action [7] with the end effector at `hand` [3]; in the end it stays, with the fingers open."""
        while len(self._waypoints) > 1 and self._reached(hand):
            self._waypoints.pop(0)
            self._waited = 0
        waypoint = self._waypoints[0]
        delta = (waypoint.target - hand) / METRES_PER_UNIT * self._gain
        return np.concatenate([np.clip(delta, -1.0, 1.0), np.zeros(3), [waypoint.grip]])

    def chunk(self, hand: NDArray[np.float64], horizon: int, elapsed: int = 1) -> NDArray[np.float64]:
        """The next actions [horizon, 7], those after the first by where the hand will about be.

        Args:
            hand: where the end effector is now [m].
            horizon: how many.
            elapsed: steps since the last chunk was asked for.
        """
        if self._waited:
            self._waited += elapsed - 1
        actions = [self.act(hand)]
        ahead = copy.deepcopy(self)
        while len(actions) < horizon:
            hand = hand + RESPONSE * METRES_PER_UNIT * actions[-1][:3]
            actions.append(ahead.act(hand))
        return np.stack(actions)

    def _reached(self, hand: NDArray[np.float64]) -> bool:
        waypoint = self._waypoints[0]
        if np.linalg.norm(waypoint.target - hand) > waypoint.tolerance and self._waited == 0:
            return False
        self._waited += 1
        return self._waited > waypoint.wait


class LiberoScript:
    """The expert as a policy of the running stack. It needs the task's bowl and plate to be the first two objects."""

    by_prompt = False

    def __init__(self, robot: RobotSpec) -> None:
        self._columns = [robot.state_names.index(axis) for axis in ("x", "y", "z")]
        self._expert: PickAndPlaceExpert | None = None
        self._step = 0

    def begin(self, scene: Scene) -> None:
        """Plans from this scene on.

        Raises:
            ValueError: the instruction is not about a black bowl and a plate.
        """
        if not all(thing in scene.prompt for thing in ("black bowl", "plate")):
            raise ValueError(f"it knows how to put a black bowl on a plate (suite spatial), not {scene.prompt!r}")
        bowl, plate = scene.objects[0][:3], scene.objects[1][:3]
        self._expert, self._step = PickAndPlaceExpert(bowl, plate, scene.state[self._columns]), 0

    def chunk(self, step: int, horizon: int, scene: Scene) -> NDArray[np.float64]:
        """The next actions [horizon, 7], for where the hand is."""
        if self._expert is None:
            raise RuntimeError("The script has not begun.")
        elapsed, self._step = max(1, step - self._step), step
        return self._expert.chunk(scene.state[self._columns], horizon, elapsed)


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
