"""Plays a policy's action chunks one step at a time."""

from typing import Any

import numpy as np

from openpi_client import base_policy


class ActionChunkBroker(base_policy.BasePolicy):
    """Asks the policy once every `action_horizon` steps; `infer` returns one step of the last result.

    Arrays are cut along their first axis, anything else is handed on with every step. This is the open loop of the
    published client, for comparison; robots do better with the strategies of `openpi_runtime`.
    """

    def __init__(self, policy: base_policy.BasePolicy, action_horizon: int) -> None:
        if action_horizon < 1:
            raise ValueError(f"action_horizon is {action_horizon}; a chunk has at least one step.")
        self._policy = policy
        self._action_horizon = action_horizon
        self._chunk: dict[str, Any] | None = None
        self._step = 0

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The next step; the observation is only looked at when a new chunk is due."""
        if self._chunk is None:
            self._chunk, self._step = self._policy.infer(obs), 0
        result = _at_step(self._chunk, self._step)
        self._step += 1
        if self._step >= self._action_horizon:
            self._chunk = None
        return result

    def reset(self) -> None:
        """Drop what is left of the chunk, and reset the policy."""
        self._policy.reset()
        self._chunk = None


def _at_step(tree: Any, step: int) -> Any:
    if isinstance(tree, dict):
        return {key: _at_step(value, step) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_at_step(value, step) for value in tree)
    return tree[step, ...] if isinstance(tree, np.ndarray) and tree.ndim else tree
