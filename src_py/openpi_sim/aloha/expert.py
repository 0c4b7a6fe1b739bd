"""Scripted experts: from the true poses of the objects to joint commands that solve the task.

A script is a list of moves. Each says where the fingertips and grippers of both arms are to be at its end and how
long it takes; the moves are solved for joint angles and joined by minimum-jerk interpolation (Flash & Hogan 1985),
so that commands start and end every move at rest and stay far below the arms' velocity limits.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from openpi_runtime.robots import RobotSpec
from openpi_sim.aloha import arms
from openpi_sim.aloha.tasks import find_task
from openpi_sim.aloha.world import CONTROL_PERIOD_NS, AlohaWorld
from openpi_sim.inverse_kinematics import ArmSolver
from openpi_sim.motion import minimum_jerk
from openpi_sim.script import Scene

OPEN, CLOSED = 0.95, 0.1
TOP_SPEED = 2.0
"""In rad/s and gripper units a second: two thirds of what the arms can do. Moves that would be faster take longer."""


def _axes(approach: Sequence[float], across: Sequence[float]) -> Float[np.ndarray, "3 3"]:
    """Rotation of a gripper that points along `approach` and opens along `across` (world axes)."""
    return np.stack([approach, across, np.cross(approach, across)], axis=1).astype(np.float64)


RIGHT_DOWN = _axes((0, 0, -1), (0, -1, 0))
RIGHT_FORWARD = _axes((-1, 0, 0), (0, -1, 0))
LEFT_DOWN = _axes((0, 0, -1), (0, 1, 0))
LEFT_ROLLED = _axes((1, 0, 0), (0, 0, 1))


@dataclasses.dataclass(frozen=True)
class Grip:
    """Where one hand is to be: grasp point in m in the world frame, rotation, gripper (0 closed, 1 open)."""

    position: tuple[float, float, float]
    rotation: Float[np.ndarray, "3 3"]
    gripper: float


@dataclasses.dataclass(frozen=True)
class Move:
    """Both hands' goals after `seconds`, or later if `TOP_SPEED` asks for it; a hand left out keeps its place."""

    seconds: float
    left: Grip | None = None
    right: Grip | None = None


Objects = Mapping[str, Float[np.ndarray, "7"]]


def transfer_cube(objects: Objects) -> Iterable[Move]:
    """Right hand picks the cube from above, left hand takes it in the air, right hand lets go."""
    x, y, _ = map(float, objects["box"][:3])
    above, at, lifted = (x, y, 0.12), (x, y, 0.022), (x, y, 0.18)
    meet, apart, waiting = (0.0, 0.5, 0.25), (0.12, 0.5, 0.25), (-0.12, 0.5, 0.25)
    yield Move(1.4, right=Grip(above, RIGHT_DOWN, OPEN), left=Grip(waiting, LEFT_ROLLED, OPEN))
    yield Move(0.8, right=Grip(at, RIGHT_DOWN, OPEN))
    yield Move(0.5, right=Grip(at, RIGHT_DOWN, CLOSED))
    yield Move(0.8, right=Grip(lifted, RIGHT_DOWN, CLOSED))
    yield Move(1.4, right=Grip(meet, RIGHT_FORWARD, CLOSED))
    yield Move(0.9, left=Grip(meet, LEFT_ROLLED, OPEN))
    yield Move(0.6, left=Grip(meet, LEFT_ROLLED, CLOSED))
    yield Move(0.5, right=Grip(meet, RIGHT_FORWARD, OPEN))
    yield Move(0.8, right=Grip(apart, RIGHT_FORWARD, OPEN))
    yield Move(0.7)


def insertion(objects: Objects) -> Iterable[Move]:
    """Right hand takes the peg, left hand the socket, both at their outer ends; they meet in the air."""
    peg, socket = objects["peg"], objects["socket"]
    outer = 0.01  # how far from the middle each is held: the hands must not meet before the parts do
    level = 0.158  # commanded height of the peg: it sags a centimetre below the socket's 0.15 m

    def right(x: float, y: float, z: float, gripper: float) -> Grip:
        return Grip((x + outer, y, z), RIGHT_DOWN, gripper)

    def left(x: float, y: float, z: float, gripper: float) -> Grip:
        return Grip((x - outer, y, z), LEFT_DOWN, gripper)

    (px, py), (sx, sy) = map(float, peg[:2]), map(float, socket[:2])
    yield Move(1.4, left(sx, sy, 0.12, OPEN), right(px, py, 0.12, OPEN))
    yield Move(0.8, left(sx, sy, 0.022, OPEN), right(px, py, 0.017, OPEN))
    yield Move(0.6, left(sx, sy, 0.022, CLOSED), right(px, py, 0.017, CLOSED))
    yield Move(0.8, left(sx, sy, 0.15, CLOSED), right(px, py, 0.147, CLOSED))
    yield Move(1.2, left(-0.1, 0.5, 0.15, CLOSED), right(0.1, 0.5, level, CLOSED))
    yield Move(0.8, left(-0.06, 0.5, 0.15, CLOSED), right(0.06, 0.5, level, CLOSED))
    yield Move(1.0, left(-0.045, 0.5, 0.15, CLOSED), right(0.045, 0.5, level, CLOSED))
    yield Move(0.7)


SCRIPTS = {"transfer_cube": transfer_cube, "insertion": insertion}


class Expert:
    """Plans one task. Commands and states are [14] as in `AlohaWorld`.

    Raises:
        ValueError: there is no script for `task`.
    """

    def __init__(self, task: str = "transfer_cube") -> None:
        if task not in SCRIPTS:
            raise ValueError(f"There is no scripted expert for the task '{task}'. Scripts: {', '.join(SCRIPTS)}.")
        self._script = SCRIPTS[task]
        world = AlohaWorld(task)
        self._solvers = {side: arm_solver(world, side) for side in arms.SIDES}

    def plan(self, objects: Objects) -> Float[np.ndarray, "steps 14"]:
        """Commands at 50 Hz from the start pose, for objects at these poses.

        Args:
            objects: pose of each object of the task in the world frame, m and quaternion w x y z.

        Raises:
            UnreachableError: an object lies where the arms cannot take it.
        """
        here = arms.start_state()
        pieces = []
        for move in self._script(objects):
            goal = self._goal(move, here)
            pieces.append(
                minimum_jerk(here, goal, seconds=move.seconds, top_speed=TOP_SPEED, period_ns=CONTROL_PERIOD_NS)
            )
            here = goal
        return np.concatenate(pieces)

    def _goal(self, move: Move, previous: Float[np.ndarray, "14"]) -> Float[np.ndarray, "14"]:
        goal = previous.copy()
        for side, arm in zip(arms.SIDES, goal.reshape(2, arms.ARM_DIM), strict=True):
            grip: Grip | None = getattr(move, side)
            if grip is not None:
                arm[:-1] = self._solvers[side].solve(np.array(grip.position), grip.rotation, arm[:-1])
                arm[-1] = grip.gripper
        return goal


def arm_solver(world: AlohaWorld, side: str) -> ArmSolver:
    """Inverse kinematics of the fingertips of the `side` ("left" or "right") arm."""
    prefix = f"vx300s_{side}/"
    joints = [prefix + joint for joint in arms.ARM_JOINTS]
    return ArmSolver(world.model, name=side, body=prefix + "gripper_link", joints=joints, grasp_point=arms.GRASP_POINT)


class AlohaScript:
    """The script for whichever task's objects lie on the table. See `openpi_sim.script.Script`."""

    by_prompt = False

    def __init__(self, _robot: RobotSpec) -> None:
        self._experts = {len(find_task(name).objects): (find_task(name), Expert(name)) for name in SCRIPTS}
        self._plan = arms.start_state()[None]

    def begin(self, scene: Scene) -> None:
        """Plans from the start pose. Raises ValueError for a scene of no task."""
        if len(scene.objects) not in self._experts:
            raise ValueError(f"There is no script for a scene of {len(scene.objects)} objects.")
        task, expert = self._experts[len(scene.objects)]
        self._plan = expert.plan(dict(zip(task.objects, scene.objects, strict=True)))

    def chunk(self, step: int, horizon: int, scene: Scene) -> Float[np.ndarray, "horizon 14"]:
        """The part of the plan that begins at `step`."""
        return self._plan[np.clip(np.arange(step, step + horizon), 0, len(self._plan) - 1)]
