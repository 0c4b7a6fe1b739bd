"""Which configs a set of parameters belongs to, so that an error about weights that do not fit can say so."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from openpi.models import model as _model
from openpi.shared import nested
from openpi.training import config as _config

# How many names an error message lists.
MAX_NAMES = 8

Shapes = dict[str, tuple[int, ...]]


def describe(params: Mapping[str, Any]) -> str:
    """A sentence that names the configs whose models have exactly these parameters."""
    names = fitting_configs(params)
    if not names:
        return "No named config has a model with these parameters."
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"The weights fit the configs {', '.join(names[:MAX_NAMES])}{more}."


def fitting_configs(params: Mapping[str, Any]) -> list[str]:
    """Names of the configs whose models have the paths and shapes of `params`, nested dicts of arrays."""
    shapes = {path: tuple(leaf.shape) for path, leaf in nested.flatten_dict(params).items()}
    known: dict[str, Shapes] = {}  # many configs share a model
    names = []
    for name in _config.config_names():
        model_config = _config.get_config(name).model
        if repr(model_config) not in known:
            known[repr(model_config)] = model_shapes(model_config)
        if known[repr(model_config)] == shapes:
            names.append(name)
    return names


def model_shapes(model_config: _model.BaseModelConfig) -> Shapes:
    """Path -> shape of every parameter of the config's model, which is not allocated."""
    state = nnx.state(nnx.eval_shape(model_config.create, jax.random.key(0)), nnx.Param)
    return {path: tuple(leaf.shape) for path, leaf in nested.flatten_dict(nnx.to_pure_dict(state)).items()}
