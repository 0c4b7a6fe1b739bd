"""A model behind the transforms of one robot: observation in, action chunk out."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from openpi import transforms as _transforms
from openpi.models import model as _model
from openpi.policies import checks, rtc, samplers
from openpi_client import base_policy as _base_policy

BasePolicy: TypeAlias = _base_policy.BasePolicy


class Policy(BasePolicy):
    """Input transforms, a JAX or PyTorch model, output transforms.

    `sample_kwargs` go to the model's `sample_actions` (num_steps, temperature, max_decoding_steps, rtc_mode ...).
    `device` is another name of `pytorch_device`.
    """

    def __init__(
        self,
        model: _model.BaseModel,
        *,
        rng: jax.Array | None = None,
        transforms: Sequence[_transforms.DataTransformFn] = (),
        output_transforms: Sequence[_transforms.DataTransformFn] = (),
        sample_kwargs: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        pytorch_device: str = "cpu",
        is_pytorch: bool = False,
        device: str | None = None,
    ) -> None:
        self._input_transforms = tuple(transforms)
        self._input_transform = _transforms.compose(self._input_transforms)
        self._output_transform = _transforms.compose(output_transforms)
        self._metadata = metadata or {}
        self._action_horizon, self._action_dim = _model_sizes(model)
        self._takes_previous_actions = samplers.accepts(model, "prev_actions")
        self._takes_noise = samplers.accepts(model, "noise")
        samplers.check_sample_kwargs(model, sample_kwargs or {})
        self._sample: samplers.Sampler
        if is_pytorch:
            self._sample = samplers.TorchSampler(model, device or pytorch_device, sample_kwargs or {})
        else:
            self._sample = samplers.JaxSampler(model, rng, sample_kwargs or {})

    def infer(self, obs: Any, *, noise: np.ndarray | None = None) -> Any:
        """One observation -> {"actions": [horizon, d] in robot units, "policy_timing": {"infer_ms"}, ...}.

        A list of observations gives a list of results, computed in one batch.

        `noise` [horizon, action_dim] (or with a batch axis) is what the flow starts from, instead of a random draw.
        `infer_ms` is the model's time alone, the device waited for. The keys `rtc/...` ask for real-time chunking
        (see `openpi.policies.rtc`); a model that does not know it ignores them, one that does answers with
        "rtc/frozen_steps", the delay it used.

        Raises:
            ValueError: the observation is incomplete, of wrong shapes or dtypes, or holds NaN; says where.
        """
        if isinstance(obs, Mapping):
            return self._infer_one(obs, noise)
        return self._infer_several(list(obs), noise)

    def reset(self) -> None:
        """Nothing to forget: every inference stands alone."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What a server tells its clients about this policy."""
        return self._metadata

    def _infer_one(self, obs: Mapping[str, Any], noise: np.ndarray | None) -> dict[str, Any]:
        obs, rtc_keys = rtc.split(_copied(obs))
        request = rtc.parse(rtc_keys, self._action_horizon) if rtc_keys and self._takes_previous_actions else None
        if request is None:
            return self._run([self._input_transform(obs)], noise, {})[0]
        inputs, prev_actions = rtc.apply_inputs(self._input_transforms, obs, request.prev_actions)
        result = self._run([inputs], noise, request.sample_kwargs(prev_actions))[0]
        return {**result, rtc.FROZEN_STEPS: request.delay}

    def _infer_several(self, observations: list[Mapping[str, Any]], noise: np.ndarray | None) -> list[dict[str, Any]]:
        if not observations:
            return []
        if any(rtc.split(obs)[1] for obs in observations):  # a chunk of its own to continue: one after the other
            noises = [None] * len(observations) if noise is None else list(noise)
            return [self._infer_one(obs, one) for obs, one in zip(observations, noises, strict=True)]
        return self._run([self._input_transform(_copied(obs)) for obs in observations], noise, {})

    def _run(
        self, samples: list[dict[str, Any]], noise: np.ndarray | None, arguments: dict[str, Any]
    ) -> list[dict[str, Any]]:
        for sample in samples:
            # pi0-FAST, known by its masks, reads the state as text and takes any length.
            checks.check_model_inputs(sample, None if "token_ar_mask" in sample else self._action_dim)
        if noise is not None:
            arguments = {**arguments, "noise": self._batched_noise(noise, len(samples))}
        batch = _stacked([_arrays(sample) for sample in samples])
        actions, infer_ms = self._sample(batch, arguments)
        return [self._result(state, chunk, infer_ms) for state, chunk in zip(batch["state"], actions, strict=True)]

    def _batched_noise(self, noise: np.ndarray, size: int) -> np.ndarray:
        if not self._takes_noise:
            raise ValueError("This model starts from no noise (pi0-FAST decodes tokens); leave `noise` out.")
        noise = np.asarray(noise, np.float32)
        batched = noise[None] if noise.ndim == 2 else noise
        expected = (size, self._action_horizon, self._action_dim)
        if batched.shape != expected:
            raise ValueError(f"The noise has shape {noise.shape}; it must be {expected} or, for one, {expected[1:]}.")
        checks.check_finite("noise", batched)
        return batched

    def _result(self, state: np.ndarray, actions: np.ndarray, infer_ms: float) -> dict[str, Any]:
        outputs = self._output_transform({"state": state, "actions": actions})
        return {**outputs, "policy_timing": {"infer_ms": infer_ms}}


class PolicyRecorder(BasePolicy):
    """Saves every observation and result of a policy as `record_dir`/step_N.npy.

    Each file holds one dict with '/'-joined keys below "inputs" and "outputs":
    `np.load(path, allow_pickle=True).item()`. Numbering goes on after the files that are already there.
    """

    def __init__(self, policy: BasePolicy, record_dir: str | pathlib.Path) -> None:
        self._policy = policy
        self._directory = pathlib.Path(record_dir)
        self._directory.mkdir(parents=True, exist_ok=True)
        numbers = [path.stem.removeprefix("step_") for path in self._directory.glob("step_*.npy")]
        self._step = max((int(number) + 1 for number in numbers if number.isdigit()), default=0)

    def infer(self, obs: Any) -> Any:
        """Infer with the recorded policy, write the record (one for each observation of a list), return the result."""
        results = self._policy.infer(obs)
        for one, result in [(obs, results)] if isinstance(obs, Mapping) else zip(obs, results, strict=True):
            record = _transforms.flatten_dict({"inputs": one, "outputs": result})
            np.save(self._directory / f"step_{self._step}.npy", np.asarray(record))  # a dict: 0-d object array
            self._step += 1
        return results

    def reset(self) -> None:
        self._policy.reset()

    @property
    def metadata(self) -> dict[str, Any]:
        """The recorded policy's metadata."""
        return getattr(self._policy, "metadata", {})


def _model_sizes(model: Any) -> tuple[int, int]:
    source = model if hasattr(model, "action_horizon") else model.config  # PyTorch models keep their config
    return source.action_horizon, source.action_dim


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """New dicts, same leaves: what a transform adds or removes stays out of the caller's observation."""
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def _arrays(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The numeric leaves as arrays, float64 as float32; text has no place in a model."""
    result: dict[str, Any] = {}
    for key, value in sample.items():
        array: Any = _arrays(value) if isinstance(value, Mapping) else np.asarray(value)
        if isinstance(array, dict):
            result[key] = array
        elif array.dtype.kind in "biuf":
            result[key] = array.astype(np.float32) if array.dtype == np.float64 else array
    return result


def _stacked(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *samples)
