"""LIBERO as one of the worlds that `openpi_sim.loop` steps and a node publishes."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8

from openpi_sim.controller import Controller
from openpi_sim.libero.suites import CONTROL_HZ, find_suite
from openpi_sim.libero.world import ACTION_DIM, CAMERAS, IDLE_ACTION, Frame, LiberoWorld
from openpi_sim.world import Intrinsics, JointReading, Pose

GROUP: Final = "arm"
_FINGERS: Final = ("gripper0_finger_joint1", "gripper0_finger_joint2")
# robosuite's names of the joints -> those of the robot's URDF, whose second finger counts the other way.
_URDF_JOINTS: Final = {
    **{f"robot0_joint{number}": (f"panda_joint{number}", 1.0) for number in range(1, 8)},
    _FINGERS[0]: ("panda_finger_joint1", 1.0),
    _FINGERS[1]: ("panda_finger_joint2", -1.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """What an episode begins with.

    Attributes:
        suite: name of a suite, see `suites.SUITES`.
        task: its index in the suite.
        trial: which of the task's initial states, modulo their number.
    """

    suite: str
    task: int
    trial: int

    def __post_init__(self) -> None:
        tasks = find_suite(self.suite).tasks
        if not 0 <= self.task < tasks:
            raise ValueError(f"Suite {self.suite} has tasks 0 to {tasks - 1}, not {self.task}.")


class DeltaController:
    """Deltas of the hand, each for one step: without a new one the hand stands and the gripper does what it did."""

    def __init__(self) -> None:
        self._next = IDLE_ACTION.copy()

    def forward(self, values: Sequence[float]) -> None:
        """Takes the action [7] of the next step. Raises ValueError if it is not 7 finite numbers."""
        action = np.array(values, np.float64)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"An action is {ACTION_DIM} finite numbers; this one is {action.tolist()}.")
        self._next = action

    def follow(
        self, now_ns: int, joints: Sequence[str], times_ns: Sequence[int], positions: Sequence[Sequence[float]]
    ) -> None:
        """Refuses a trajectory."""
        raise ValueError("LIBERO's arm is moved by deltas of its hand and takes no trajectories of joints.")

    def target(self, now_ns: int) -> Float[np.ndarray, "7"]:
        """The action of this step; the next one stands unless a command comes."""
        action, self._next = self._next, np.append(np.zeros(ACTION_DIM - 1), self._next[-1])
        return action


class LiberoStage:
    """Loads the chosen scene at each reset, where it is not the one loaded, and steps it at 20 Hz.

    Everything but `choose` and what is read of the frame belongs to the loop's thread, since the renderer does.
    """

    period_ns = round(1e9 / CONTROL_HZ)

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._cameras: tuple[str, ...] = ()
        self._resolution = (256, 256)
        self._world: LiberoWorld | None = None
        self._loaded: tuple[str, int, int] | None = None
        self._action = IDLE_ACTION
        self._frame: Frame | None = None

    def choose(self, scene: Scene) -> None:
        """The scene of the next reset. May be called from any thread."""
        self._scene = scene

    @property
    def instruction(self) -> str:
        """What the task loaded asks for, in words."""
        return self._loaded_world.language

    @property
    def objects(self) -> Mapping[str, Pose]:
        """True poses; what the task is about comes first, in its order."""
        return self._now.objects

    @property
    def reward(self) -> float:
        """1 while the task's goal holds."""
        return self._now.reward

    @property
    def success(self) -> bool:
        """Whether the task's goal holds."""
        return self._now.success

    def reset(self, seed: int) -> None:
        """Starts the chosen scene, its objects settled. Loading a task takes seconds."""
        scene = self._scene
        if self._loaded != (scene.suite, scene.task, seed):
            self.close()
            self._world = LiberoWorld(
                scene.suite, scene.task, resolution=self._resolution, cameras=self._cameras, seed=seed
            )
            self._loaded = (scene.suite, scene.task, seed)
        self._frame = self._loaded_world.reset(scene.trial)

    def controllers(self) -> dict[str, Controller]:
        """One, for the arm with its gripper."""
        return {GROUP: DeltaController()}

    def command(self, target: Float[np.ndarray, "7"]) -> None:
        """Sets the action of the next step."""
        self._action = target

    def step(self) -> None:
        """Advances 50 ms."""
        self._frame = self._loaded_world.step(self._action)

    def readings(self) -> Mapping[str, JointReading]:
        """All joints as the URDF names them, the fingers as LIBERO does too, and the hand's pose."""
        joints = self._now.joints
        rows = {urdf: sign * np.array(joints[name]) for name, (urdf, sign) in _URDF_JOINTS.items()}
        rows |= {name: np.array(joints[name]) for name in _FINGERS}
        position, velocity = np.stack(list(rows.values()), axis=1)
        return {GROUP: JointReading(tuple(rows), position, velocity, np.empty(0), self._now.hand)}

    def open_cameras(self, names: tuple[str, ...], *, width: int, height: int) -> "StageCameras":
        """The cameras as views of the frames.

        Raises:
            ValueError: there is no such camera.
        """
        if unknown := sorted(set(names) - set(CAMERAS)):
            raise ValueError(f"LIBERO has the cameras {', '.join(CAMERAS)}, not {', '.join(unknown)}.")
        self._cameras, self._resolution = names, (height, width)
        return StageCameras(self, names)

    def intrinsics(self, name: str, width: int, height: int) -> Intrinsics:
        """Refused: the pictures are mirror images, which no pinhole makes."""
        raise ValueError("LIBERO's pictures are mirrored, so no camera_info fits; leave info_topic out.")

    def picture(self, camera: str) -> UInt8[np.ndarray, "height width 3"]:
        """What a camera saw at the end of the last step, turned as policies are given it."""
        return self._now.images[camera]

    def close(self) -> None:
        """Frees the simulator and its renderer."""
        if self._world is not None:
            self._world.close()
        self._world = self._loaded = self._frame = None

    @property
    def _now(self) -> Frame:
        if self._frame is None:
            raise RuntimeError("The stage is empty: reset it before it is looked at.")
        return self._frame

    @property
    def _loaded_world(self) -> LiberoWorld:
        if self._world is None:
            raise RuntimeError("The stage is empty: reset it before it is stepped.")
        return self._world


class StageCameras:
    """The pictures of the newest frame. Closing them ends the stage, whose renderer lives on the same thread."""

    def __init__(self, stage: LiberoStage, names: Collection[str]) -> None:
        self.names = tuple(names)
        self._stage = stage

    def render(self, name: str) -> UInt8[np.ndarray, "height width 3"]:
        """What the camera saw."""
        return self._stage.picture(name)

    def close(self) -> None:
        """Frees the simulator."""
        self._stage.close()
