"""One LIBERO task as a simulated robot: what a policy is shown, and what it may command."""

import dataclasses
import os
import pathlib
from collections.abc import Collection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from openpi_runtime.rotations import axis_angle
from openpi_sim.libero.suites import SETTLING_STEPS, find_suite

IDLE_ACTION: Final = np.array([0.0] * 6 + [-1.0])
"""Stay, with the gripper open."""

ACTION_DIM: Final = 7

CAMERAS: Final = {"agentview": "agentview_image", "eye_in_hand": "robot0_eye_in_hand_image"}
"""Camera name -> LIBERO's observation key."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """What is known after a control step.

    Attributes:
        images: camera name -> uint8 [H, W, 3], turned by 180 degrees as policies were trained; empty without rendering.
        state: float64 [8]: end effector position [m], orientation as axis-angle [rad], both in the world frame, and
            the two finger positions [m].
        hand: pose of the end effector in the world frame, float64 [7]: position [m], quaternion w x y z.
        joints: joint name -> (position, velocity) of the arm [rad, rad/s] and the fingers [m, m/s].
        objects: object name -> pose in the world frame, float64 [7] as `hand`; what only a simulator knows. Those the
            task is about come first, in the task's order.
        reward: what the task gives.
        success: the task's goal holds.
    """

    images: dict[str, NDArray[np.uint8]]
    state: NDArray[np.float64]
    hand: NDArray[np.float64]
    joints: dict[str, tuple[float, float]]
    objects: dict[str, NDArray[np.float64]]
    reward: float
    success: bool


class LiberoWorld:
    """A task of a suite, stepped at 20 Hz with operational-space deltas.

    An action is [7]: position delta, rotation delta (both in [-1, 1], scaled by the controller to 0.05 m and 0.5 rad),
    gripper (-1 open, +1 close).
    """

    def __init__(
        self,
        suite: str,
        task: int,
        *,
        resolution: tuple[int, int] = (256, 256),
        cameras: Collection[str] = tuple(CAMERAS),
        seed: int = 7,
    ) -> None:
        """Loads the task.

        Args:
            suite: name of a suite, see `suites.SUITES`.
            task: its index in the suite.
            resolution: height and width of the images, pixels.
            cameras: those of `CAMERAS` that are rendered; without any, a step takes a tenth of the time.
            seed: seed of the simulator; results are published with 7.

        Raises:
            ValueError: unknown suite or task.
            ModuleNotFoundError: LIBERO is not installed here.
        """
        known = find_suite(suite)
        if not 0 <= task < known.tasks:
            raise ValueError(f"{known.benchmark} has tasks 0 to {known.tasks - 1}, not {task}.")
        os.environ.setdefault("MUJOCO_GL", "egl")
        benchmark = _import_libero().benchmark.get_benchmark_dict()[known.benchmark]()
        self.language: str = benchmark.get_task(task).language
        self._initial_states: NDArray[np.float64] = np.asarray(benchmark.get_task_init_states(task))
        self._env = _make_env(benchmark.get_task(task), resolution=resolution, cameras=cameras)
        self._env.seed(seed)

    @property
    def trials(self) -> int:
        """How many initial states the task comes with."""
        return len(self._initial_states)

    def reset(self, trial: int) -> Frame:
        """Puts the objects where initial state `trial` (modulo their number) has them and lets them settle."""
        self._env.reset()
        self._env.set_init_state(self._initial_states[trial % self.trials])
        for _ in range(SETTLING_STEPS):
            frame = self.step(IDLE_ACTION)
        return frame

    def step(self, action: NDArray[np.floating]) -> Frame:
        """Executes one action for 50 ms of simulated time.

        Raises:
            ValueError: the action is not 7 finite numbers.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"A LIBERO action is {ACTION_DIM} finite numbers, not {action!r} of shape {action.shape}.")
        observation, reward, done, _ = self._env.step(action.tolist())
        return self._frame(observation, reward=float(reward), success=bool(done))

    def close(self) -> None:
        """Frees the simulator and its renderer."""
        self._env.close()

    def _frame(self, observation: dict[str, Any], *, reward: float, success: bool) -> Frame:
        images = {
            name: np.ascontiguousarray(observation[key][::-1, ::-1])
            for name, key in CAMERAS.items()
            if key in observation
        }
        hand = _pose(observation, "robot0_eef")
        rotation, fingers = axis_angle(observation["robot0_eef_quat"]), observation["robot0_gripper_qpos"]
        return Frame(
            images=images,
            state=np.concatenate([hand[:3], rotation, fingers]).astype(np.float64),
            hand=hand,
            joints=_joints(observation),
            objects={name: _pose(observation, name) for name in self._objects(observation)},
            reward=reward,
            success=success,
        )

    def _objects(self, observation: dict[str, Any]) -> list[str]:
        names = [key.removesuffix("_pos") for key in observation if key.endswith("_pos") and "robot0" not in key]
        first: list[str] = self._env.obj_of_interest
        return sorted(names, key=lambda name: first.index(name) if name in first else len(first))


def _pose(observation: dict[str, Any], name: str) -> NDArray[np.float64]:
    x, y, z, w = observation[f"{name}_quat"]
    return np.array([*observation[f"{name}_pos"], w, x, y, z], dtype=np.float64)


def _joints(observation: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """By the names of robosuite's model."""
    arm = zip(observation["robot0_joint_pos"], observation["robot0_joint_vel"], strict=True)
    fingers = zip(observation["robot0_gripper_qpos"], observation["robot0_gripper_qvel"], strict=True)
    named = [(f"robot0_joint{number}", reading) for number, reading in enumerate(arm, start=1)]
    named += [(f"gripper0_finger_joint{number}", reading) for number, reading in enumerate(fingers, start=1)]
    return {name: (float(position), float(velocity)) for name, (position, velocity) in named}


def _import_libero() -> Any:
    try:
        from libero import libero
        from libero.libero import benchmark, envs  # noqa: F401  (bound as attributes of the package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"LIBERO is not installed in this environment ({error.name} is missing). "
            "Run `make setup-libero` and use .venv-libero/bin/python."
        ) from error
    return libero


def _make_env(task: Any, *, resolution: tuple[int, int], cameras: Collection[str]) -> Any:
    libero = _import_libero()
    from libero.libero.envs.env_wrapper import ControlEnv

    return ControlEnv(
        bddl_file_name=str(pathlib.Path(libero.get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)),
        use_camera_obs=bool(cameras),
        has_offscreen_renderer=bool(cameras),
        camera_names=[CAMERAS[name].removesuffix("_image") for name in cameras],
        camera_heights=resolution[0],
        camera_widths=resolution[1],
        hard_reset=False,
        ignore_done=True,  # episodes end by the protocol, and a robot that is left alone goes on
    )
