"""One LIBERO task as a simulated robot: what a policy is shown, and what it may command."""

import dataclasses
import math
import os
import pathlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

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
        state: float64 [8]: end effector position [m], orientation as axis-angle [rad] in the robot's base frame,
            the two finger positions [m].
        objects: object name -> position [m], float64 [3], in the world frame; what only a simulator knows.
        success: the task's goal holds.
    """

    images: dict[str, NDArray[np.uint8]]
    state: NDArray[np.float64]
    objects: dict[str, NDArray[np.float64]]
    success: bool


class LiberoWorld:
    """A task of a suite, stepped at 20 Hz with operational-space deltas.

    An action is [7]: position delta, rotation delta (both in [-1, 1], scaled by the controller to 0.05 m and 0.5 rad),
    gripper (-1 open, +1 close).
    """

    def __init__(self, suite: str, task: int, *, resolution: int = 256, render: bool = True, seed: int = 7) -> None:
        """Loads the task.

        Args:
            suite: name of a suite, see `suites.SUITES`.
            task: its index in the suite.
            resolution: height and width of the images, pixels.
            render: without it there are no images and a step takes a tenth of the time.
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
        self._render = render
        self._env = _make_env(benchmark.get_task(task), resolution=resolution, render=render)
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
        observation, _, done, _ = self._env.step(action.tolist())
        return self._frame(observation, success=bool(done))

    def close(self) -> None:
        """Frees the simulator and its renderer."""
        self._env.close()

    def _frame(self, observation: dict[str, Any], *, success: bool) -> Frame:
        images = {
            name: np.ascontiguousarray(observation[key][::-1, ::-1])
            for name, key in CAMERAS.items()
            if key in observation
        }
        objects = {
            key.removesuffix("_pos"): np.asarray(value, dtype=np.float64)
            for key, value in observation.items()
            if key.endswith("_pos") and "robot0" not in key
        }
        state = np.concatenate(
            [
                observation["robot0_eef_pos"],
                axis_angle(observation["robot0_eef_quat"]),
                observation["robot0_gripper_qpos"],
            ]
        ).astype(np.float64)
        return Frame(images=images, state=state, objects=objects, success=success)


def axis_angle(quaternion: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation vector [rad] of a unit quaternion (x, y, z, w).

    The angle is 2 acos(w), from 0 to 2 pi: q and -q give different vectors, as in the data that policies were
    trained on, so it must not be folded to [0, pi].
    """
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    w = min(max(w, -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.array([x, y, z]) * (2.0 * math.acos(w) / sine)


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


def _make_env(task: Any, *, resolution: int, render: bool) -> Any:
    libero = _import_libero()
    from libero.libero.envs.env_wrapper import ControlEnv

    return ControlEnv(
        bddl_file_name=str(pathlib.Path(libero.get_libero_path("bddl_files"), task.problem_folder, task.bddl_file)),
        use_camera_obs=render,
        has_offscreen_renderer=render,
        camera_names=["agentview", "robot0_eye_in_hand"],
        camera_heights=resolution,
        camera_widths=resolution,
        hard_reset=False,
    )
