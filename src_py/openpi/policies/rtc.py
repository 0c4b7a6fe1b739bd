"""Real-time chunking at the policy's edge: the `rtc/` keys of an observation.

They speak robot units, and row 0 of `rtc/prev_actions` is the step due at the observation's time. The policy sends
the actions through its own input transforms, which make them relative to the present state and normalise them just
as training actions, and hands the result to the model (Black et al. 2025, "Real-Time Execution of Action Chunking
Flow Policies").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openpi import transforms

PREFIX = "rtc/"
PREV_ACTIONS = "rtc/prev_actions"
PREV_VALID = "rtc/prev_valid"
DELAY = "rtc/delay"
EXECUTION_HORIZON = "rtc/execution_horizon"
GUIDANCE_WEIGHT = "rtc/guidance_weight"
FROZEN_STEPS = "rtc/frozen_steps"


@dataclasses.dataclass(frozen=True)
class Request:
    """What one observation asks of real-time chunking.

    prev_actions: [horizon, d] robot units, of which the first `valid` rows are real.
    delay: steps that will be executed before the answer arrives: the model must keep them.
    execution_horizon: steps executed between two inferences; None leaves it to the model.
    guidance_weight: bound on the guidance; None leaves it to the model.
    """

    prev_actions: np.ndarray
    valid: int
    delay: int
    execution_horizon: int | None
    guidance_weight: float | None

    def sample_kwargs(self, prev_actions: np.ndarray) -> dict[str, Any]:
        """Arguments of `sample_actions`, with the previous actions in model space [horizon, action_dim]."""
        kwargs: dict[str, Any] = {
            "prev_actions": np.asarray(prev_actions, np.float32)[None],
            "delay": np.int32(self.delay),
        }
        if self.execution_horizon is not None:
            kwargs["execution_horizon"] = np.int32(self.execution_horizon)
        if self.guidance_weight is not None:
            kwargs["guidance_weight"] = np.float32(self.guidance_weight)
        return kwargs


def split(obs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An observation without its `rtc/` keys, and those keys."""
    rest = {key: value for key, value in obs.items() if not key.startswith(PREFIX)}
    return rest, {key: value for key, value in obs.items() if key.startswith(PREFIX)}


def parse(keys: Mapping[str, Any], horizon: int) -> Request | None:
    """Read the `rtc/` keys for a model of `horizon` steps; None where there is no previous action.

    Delay and execution horizon are brought into 0 <= delay <= valid and delay <= horizon - execution_horizon, and
    rows that are not real get no weight.

    Raises:
        ValueError: the previous actions are no matrix or not finite, a number is negative, or a key is unknown.
    """
    _check_known(keys)
    prev = np.asarray(keys.get(PREV_ACTIONS, ()), np.float64)
    valid = min(len(prev), horizon, _count(keys, PREV_VALID, len(prev)))
    if valid == 0:
        return None
    _check_actions(prev[:valid])
    delay = min(_count(keys, DELAY, 0), valid)
    executed = _count(keys, EXECUTION_HORIZON, 0)
    # Weight ends horizon - executed steps in, so that a larger value also keeps it off rows that are not real.
    executed = min(max(executed, horizon - valid), horizon - delay)
    weight = keys.get(GUIDANCE_WEIGHT)
    return Request(
        prev_actions=prev[np.minimum(np.arange(horizon), valid - 1)],
        valid=valid,
        delay=delay,
        execution_horizon=executed if EXECUTION_HORIZON in keys or valid < horizon else None,
        guidance_weight=None if weight is None else float(weight),
    )


def apply_inputs(
    fns: Sequence[transforms.DataTransformFn], data: dict[str, Any], prev_actions: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Run the input transforms on an observation with the previous actions in the place of training actions.

    Returns:
        The model inputs and the previous actions in model space.
    """
    for fn in fns:
        if isinstance(fn, transforms.RepackTransform):  # names the observation's keys only: would drop the actions
            data = transforms.compose([fn])(data)
            continue
        data = transforms.compose([fn])({**data, "actions": prev_actions})
        prev_actions = data.pop("actions", prev_actions)
    return data, prev_actions


def _check_known(keys: Mapping[str, Any]) -> None:
    known = {PREV_ACTIONS, PREV_VALID, DELAY, EXECUTION_HORIZON, GUIDANCE_WEIGHT}
    if unknown := sorted(set(keys) - known):
        raise ValueError(f"Unknown real-time chunking keys {unknown}; known are {sorted(known)}.")


def _check_actions(prev: np.ndarray) -> None:
    if prev.ndim != 2:
        raise ValueError(f"'{PREV_ACTIONS}' has shape {prev.shape}; it must be [horizon, action values].")
    if not np.isfinite(prev).all():
        raise ValueError(f"'{PREV_ACTIONS}' holds NaN or infinity; leave the key out to start afresh.")


def _count(keys: Mapping[str, Any], name: str, default: int) -> int:
    value = int(keys.get(name, default))
    if value < 0:
        raise ValueError(f"'{name}' is {value}; it must be 0 or more steps.")
    return value
