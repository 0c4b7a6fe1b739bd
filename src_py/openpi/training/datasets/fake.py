"""Made-up samples of the shapes a model takes: for tests, benchmarks and a first run without data."""

from __future__ import annotations

from typing import Any, SupportsIndex

import jax
import numpy as np

from openpi.models import model as _model

# Small enough for the vocabulary of every model, tiny ones included.
_MAX_TOKEN = 256


class FakeDataset:
    """`num_samples` samples like the model's input spec, without the batch axis; sample i is always the same."""

    def __init__(self, model_config: _model.BaseModelConfig, num_samples: int) -> None:
        self._num_samples = num_samples
        observation, actions = model_config.inputs_spec()
        self._spec = {**observation.to_dict(), "actions": actions}

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        if not 0 <= int(index) < self._num_samples:
            raise IndexError(f"The fake dataset has {self._num_samples} samples, no sample {int(index)}.")
        rng = np.random.default_rng(int(index))
        return jax.tree.map(lambda spec: _random(rng, spec), self._spec)


def _random(rng: np.random.Generator, spec: jax.ShapeDtypeStruct) -> np.ndarray:
    shape, dtype = spec.shape[1:], np.dtype(spec.dtype)
    if dtype == np.bool_:
        return np.ones(shape, np.bool_)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, _MAX_TOKEN, shape).astype(dtype)
    return rng.uniform(-1.0, 1.0, shape).astype(dtype)
