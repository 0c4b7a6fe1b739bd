"""Runs a model's `sample_actions` on a batch of samples: one class for JAX, one for PyTorch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from openpi.models import model as _model

Batch: TypeAlias = Mapping[str, Any]


class Sampler(Protocol):
    """Model inputs with a batch axis (NumPy) and further arguments -> actions [b, ...] and milliseconds taken."""

    def __call__(self, batch: Batch, arguments: Mapping[str, Any]) -> tuple[np.ndarray, float]: ...


class JaxSampler:
    """Compiles `sample_actions` once per batch size and set of arguments.

    The policy's own sample arguments (num_steps, temperature, max_decoding_steps, ...) are constants of the compiled
    function, since some of them decide shapes; noise and what real-time chunking adds are its inputs.
    """

    def __init__(self, model: _model.BaseModel, rng: jax.Array | None, sample_kwargs: Mapping[str, Any]) -> None:
        graphdef, self._state = nnx.split(model)
        self._rng = jax.random.key(0) if rng is None else rng

        def sample(state: nnx.State, rng: jax.Array, batch: Any, arguments: Any) -> jax.Array:
            observation: _model.Observation = _model.Observation.from_dict(batch)
            return nnx.merge(graphdef, state).sample_actions(rng, observation, **{**sample_kwargs, **arguments})

        self._sample = jax.jit(sample)

    def __call__(self, batch: Batch, arguments: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        self._rng, rng = jax.random.split(self._rng)
        on_device = jax.tree.map(jnp.asarray, (dict(batch), dict(arguments)))
        start = time.perf_counter()
        actions = jax.block_until_ready(self._sample(self._state, rng, *on_device))
        return np.asarray(actions), _milliseconds_since(start)


class TorchSampler:
    """Runs a PyTorch model, in evaluation mode, on `device`."""

    def __init__(self, model: Any, device: str, sample_kwargs: Mapping[str, Any]) -> None:
        self._model = model.to(device)
        self._model.eval()
        self._device = device
        self._sample_kwargs = sample_kwargs

    def __call__(self, batch: Batch, arguments: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        import torch

        observation: _model.Observation = _model.Observation.from_dict(jax.tree.map(self._tensor, dict(batch)))
        further = {name: self._tensor(value) if np.ndim(value) else value.item() for name, value in arguments.items()}
        self._synchronise()
        start = time.perf_counter()
        with torch.no_grad():
            actions = self._model.sample_actions(self._device, observation, **{**self._sample_kwargs, **further})
        self._synchronise()
        elapsed = _milliseconds_since(start)
        return actions.detach().float().cpu().numpy(), elapsed

    def _tensor(self, value: Any) -> Any:
        import torch

        array = np.array(value)
        return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array).to(self._device)

    def _synchronise(self) -> None:
        import torch

        if torch.device(self._device).type == "cuda":
            torch.cuda.synchronize(self._device)


def accepts(model: Any, argument: str) -> bool:
    """Whether `sample_actions` of this model takes that argument."""
    parameters = inspect.signature(model.sample_actions).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_sample_kwargs(model: Any, sample_kwargs: Mapping[str, Any]) -> None:
    """Raises ValueError for arguments that `sample_actions` of this model does not take, and names those it does."""
    if unknown := [name for name in sample_kwargs if not accepts(model, name)]:
        parameters = [name for name in inspect.signature(model.sample_actions).parameters if name != "self"]
        raise ValueError(f"sample_actions of {type(model).__name__} takes no {unknown}; its arguments: {parameters}.")


def _milliseconds_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000.0
