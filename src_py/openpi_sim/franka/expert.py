"""Scripted expert: reach for the cube that the prompt names, grasp it, lift it."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from openpi_runtime.conventions import ActionConvention
from openpi_runtime.robots import RobotSpec
from openpi_sim.franka import panda
from openpi_sim.franka.world import CUBES, FrankaWorld
from openpi_sim.inverse_kinematics import ArmSolver
from openpi_sim.motion import minimum_jerk
from openpi_sim.script import Scene
from openpi_sim.world import Pose

OPEN, CLOSED = 0.0, 1.0
TOP_SPEED = 1.0
"""In rad/s: half of what the slowest joint can do. Moves that would be faster take longer."""

_FINGERTIPS = np.array([0.0, 0.0, 0.1034])  # in the hand's frame
_HAND_DOWN = np.diag([1.0, -1.0, -1.0])
_JOINTS = np.array([1.0] * 7 + [0.0])
_HELD_UP_RAD = 0.05
_RETURN_STEPS = 5  # in which an arm that is off the plan is led back to it
_HOVER_M, _GRASP_M, _LIFT_M = 0.16, 0.02, 0.25


def cube_of(prompt: str) -> str:
    """The colour that the prompt names.

    Raises:
        ValueError: it names none of the cubes, or several.
    """
    named = [colour for colour in CUBES if colour in prompt.lower().split()]
    if len(named) != 1:
        raise ValueError(
            f"The prompt must name one of the cubes {', '.join(CUBES)}; {prompt!r} names {named or 'none'}."
        )
    return named[0]


class Expert:
    """Plans a lift. Commands and states are [8] as in `FrankaWorld`."""

    def __init__(self, urdf: Path) -> None:
        model = FrankaWorld(urdf).model
        self._solver = ArmSolver(
            model, name="Panda", body="panda_hand", joints=panda.ARM_JOINTS, grasp_point=_FINGERTIPS
        )

    def plan(
        self, objects: Mapping[str, Pose], prompt: str, start: Float[np.ndarray, "8"]
    ) -> Float[np.ndarray, "steps 8"]:
        """Joint commands at 15 Hz from `start` to the cube of the prompt in the air.

        Args:
            objects: pose of each cube in the world frame, m and quaternion w x y z.
            prompt: an instruction with the colour of a cube in it.
            start: measured state.

        Raises:
            ValueError: the prompt names no cube.
            UnreachableError: the cube lies where the arm cannot take it.
        """
        x, y, _ = objects[cube_of(prompt)][:3]
        here = start[:7]
        pieces = []
        for seconds, height, gripper in (
            (1.6, _HOVER_M, OPEN),
            (1.2, _GRASP_M, OPEN),
            (0.6, _GRASP_M, CLOSED),
            (1.4, _LIFT_M, CLOSED),
            (0.6, _LIFT_M, CLOSED),
        ):
            arm = self._solver.solve(np.array([x, y, height]), _HAND_DOWN, here)
            move = minimum_jerk(here, arm, seconds=seconds, top_speed=TOP_SPEED, period_ns=FrankaWorld.period_ns)
            pieces.append(np.column_stack([move, np.full(len(move), gripper)]))  # the gripper at once
            here = arm
        return np.concatenate(pieces)


class FrankaScript:
    """The lift as chunks of DROID actions. See `openpi_sim.script.Script`."""

    by_prompt = True

    def __init__(self, robot: RobotSpec) -> None:
        self._expert = Expert(robot.urdf_path)
        self._convention = ActionConvention(robot)
        self._plan = np.array(robot.rest)[None]
        self._late = 0  # steps by which the arm was held up

    def begin(self, scene: Scene) -> None:
        """Plans from where the arm is. Raises ValueError where the prompt names no cube, or one out of reach."""
        self._plan = self._expert.plan(dict(zip(CUBES, scene.objects, strict=True)), scene.prompt, scene.state)
        self._late = 0

    def chunk(self, step: int, horizon: int, scene: Scene) -> Float[np.ndarray, "horizon 8"]:
        """Velocities along the plan, with what the arm is off it made up in the first steps.

        An arm that was held up, as by a HOLD, goes on from where it is.
        """
        step = min(step - self._late, len(self._plan) - 1)
        passed = self._plan[max(step, 0) :: -1]
        off = np.abs((passed - scene.state) * _JOINTS).max(axis=1)
        if off[0] > _HELD_UP_RAD:
            behind = int(np.argmin(off))
            self._late, step = self._late + behind, step - behind
        path = self._plan[np.clip(np.arange(step, step + horizon + 1), 0, len(self._plan) - 1)]
        share = np.clip(1.0 - np.arange(horizon + 1) / _RETURN_STEPS, 0.0, 1.0)
        path = path + np.outer(share, scene.state - path[0]) * _JOINTS
        return np.array([self._convention.action(there, here) for here, there in itertools.pairwise(path)])
