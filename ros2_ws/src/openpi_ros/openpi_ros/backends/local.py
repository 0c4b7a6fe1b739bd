"""Inference in this process: any config and checkpoint of `openpi`, on the GPU where there is one."""

import pathlib
from typing import Any

import numpy as np
from rclpy.node import Node

from openpi_ros.backends.base import for_policy
from openpi_runtime.robots import RobotSpec

# Spread of random actions, in rad: neighbouring steps must stay below the velocity limits.
_TREMOR = 0.004

# Robot -> the config of its checkpoints, and a small one of the same inputs and outputs for random weights.
DEFAULT_CONFIGS = {
    "aloha": ("pi0_aloha_sim", "pi0_aloha_sim_small"),
    "droid": ("pi05_droid", "pi0_droid_small"),
    "libero": ("pi05_libero", "pi0_libero_small"),
}


class LocalBackend:
    """A policy of `openpi`, compiled before its first answer. Without a checkpoint its weights are random."""

    uses_images = True

    def __init__(self, node: Node, params: dict[str, Any], robot: RobotSpec) -> None:
        """Loads and compiles; takes seconds for small models, minutes for large ones.

        Raises:
            ValueError: the config is unknown, or the weights do not fit it.
            FileNotFoundError: the checkpoint is not there.
            ImportError: JAX is not installed.
        """
        checkpoint = params["checkpoint"]
        if checkpoint and "://" not in checkpoint and not pathlib.Path(checkpoint).is_dir():  # before JAX is loaded
            raise FileNotFoundError(f"there is no checkpoint {checkpoint}; give a folder, or a URL such as gs://...")
        from openpi.training import config as training_config

        config = training_config.get_config(params["config"] or _default_config(robot, checkpoint))
        # Only now, so that a misspelt config is told seconds earlier.
        from openpi.models.model import ModelType
        from openpi.policies import policy_config

        if checkpoint:
            self._policy = policy_config.create_trained_policy(config, checkpoint)
        else:
            stats = gentle_statistics(config, robot)
            self._policy = policy_config.create_random_policy(config, seed=params["seed"], norm_stats=stats)
            node.get_logger().warning(f"No checkpoint given: {config.name} has random weights and does nothing useful.")
        self.metadata: dict[str, Any] = dict(self._policy.metadata)
        self._random = np.random.default_rng(params["seed"])
        takes_noise = config.model.model_type is not ModelType.PI0_FAST
        self._noise_shape = (config.model.action_horizon, config.model.action_dim) if takes_noise else None
        self._compile(_blank_observation(robot), with_previous=params["strategy"] == "rtc")

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """One inference. The noise it started from is in the result, so that a record can be computed again."""
        if self._noise_shape is None:
            return self._policy.infer(for_policy(obs))
        noise = self._random.standard_normal(self._noise_shape, dtype=np.float32)
        return {**self._policy.infer(for_policy(obs), noise=noise), "noise": noise}

    def _compile(self, obs: dict[str, Any], *, with_previous: bool) -> None:
        actions = self.infer(obs)["actions"]
        if with_previous:  # compiled apart
            self.infer(
                {
                    **obs,
                    "rtc/prev_actions": actions,
                    "rtc/delay": 0,
                    "rtc/execution_horizon": 1,
                    "rtc/guidance_weight": 5.0,
                }
            )

    def reset(self) -> None:
        """Forgets the episode."""
        self._policy.reset()

    def close(self) -> None:
        """The process's end frees the model."""


def _default_config(robot: RobotSpec, checkpoint: str) -> str:
    if robot.name not in DEFAULT_CONFIGS:
        raise ValueError(f"Robot {robot.name} has no config of its own for the backend 'local'; set `config`.")
    full, small = DEFAULT_CONFIGS[robot.name]
    return full if checkpoint else small


def _blank_observation(robot: RobotSpec) -> dict[str, Any]:
    pictures = {camera.name: np.zeros((480, 640, 3), np.uint8) for camera in robot.cameras if camera.required}
    return robot.observation.observation(np.array(robot.rest), pictures, robot.default_prompt)


def gentle_statistics(config: Any, robot: RobotSpec) -> dict[str, Any]:
    """Statistics with which random weights make the robot tremble about where it stands, inside every limit."""
    from openpi import transforms

    data = config.data.create(config.assets_dirs, config.model)
    inputs = data.data_transforms.inputs
    rest = np.asarray(transforms.compose(inputs)(_blank_observation(robot))["state"], np.float64)
    absolute = all(column.kind == "absolute" for column in robot.action)
    is_delta = any(isinstance(transform, transforms.DeltaActions) for transform in inputs)
    centre = rest if absolute and not is_delta else np.zeros(len(robot.action))

    def around(mean: np.ndarray, spread: float) -> transforms.NormStats:
        width = np.full_like(mean, spread)
        return transforms.NormStats(mean=mean, std=width, q01=mean - 2 * width, q99=mean + 2 * width)

    return {"state": around(rest, 1.0), "actions": around(centre, _TREMOR / (robot.velocity_step or 1.0))}
