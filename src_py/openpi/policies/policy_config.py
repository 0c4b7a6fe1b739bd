"""Policies from a training config: with a checkpoint's weights, or random ones."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from openpi import transforms
from openpi.models import model as _model
from openpi.policies import checks
from openpi.policies import policy as _policy
from openpi.shared import download
from openpi.training import checkpoints as _checkpoints
from openpi.training import config as _config
from openpi.training import fitting

# For code that runs once: compiled in a fifth of the time.
_QUICK_COMPILE = {"xla_backend_optimization_level": 0}
# Longer than any robot's state or action vector.
_RANDOM_STATS_DIM = 64


def create_trained_policy(
    train_config: _config.TrainConfig,
    checkpoint_dir: pathlib.Path | str,
    *,
    repack_transforms: transforms.Group | None = None,
    sample_kwargs: dict[str, Any] | None = None,
    default_prompt: str | None = None,
    norm_stats: dict[str, transforms.NormStats] | None = None,
    pytorch_device: str | None = None,
) -> _policy.Policy:
    """A policy with the weights of a checkpoint: JAX (`params/`) or PyTorch (`model.safetensors`).

    JAX parameters are restored as bfloat16, whatever the config's compute dtype. Normalisation statistics come from
    the checkpoint's `assets/`, as those are what the weights were trained with, unless `norm_stats` is given.
    `pytorch_device` defaults to "cuda" where there is one.

    Raises:
        FileNotFoundError: the checkpoint or its statistics are not there.
        ValueError: the weights do not fit the config, or the config names no asset to take statistics from.
    """
    directory = download.maybe_download(str(checkpoint_dir))
    weights = directory / "model.safetensors"
    is_pytorch = weights.exists()
    model = _load_pytorch(train_config, weights) if is_pytorch else _load_jax(train_config, directory / "params")
    data_config = train_config.data.create(train_config.assets_dirs, train_config.model)
    if norm_stats is None:
        norm_stats = _checkpoint_stats(directory, train_config, data_config.asset_id)
    chain = _chain(data_config, norm_stats, repack_transforms or transforms.Group(), default_prompt, check_state=True)
    return _policy.Policy(
        model,
        transforms=chain.inputs,
        output_transforms=chain.outputs,
        sample_kwargs=sample_kwargs,
        metadata=train_config.policy_metadata,
        is_pytorch=is_pytorch,
        pytorch_device=_torch_device(pytorch_device) if is_pytorch else "cpu",
    )


def create_random_policy(
    train_config: _config.TrainConfig,
    seed: int = 0,
    *,
    sample_kwargs: dict[str, Any] | None = None,
    default_prompt: str | None = None,
    norm_stats: Mapping[str, transforms.NormStats] | None = None,
) -> _policy.Policy:
    """A policy with random weights in the config's dtype, for tests and load: right shapes, meaningless actions.

    Without `norm_stats`, normalisation leaves values as they are (up to its epsilon).
    """
    model = _random_model(train_config.model, seed)
    data_config = train_config.data.create(train_config.assets_dirs, train_config.model)
    stats = _identity_stats() if norm_stats is None else norm_stats
    chain = _chain(data_config, stats, transforms.Group(), default_prompt, check_state=norm_stats is not None)
    return _policy.Policy(
        model,
        rng=jax.random.key(seed),
        transforms=chain.inputs,
        output_transforms=chain.outputs,
        sample_kwargs=sample_kwargs,
        metadata=train_config.policy_metadata,
    )


def _chain(
    data_config: _config.DataConfig,
    norm_stats: Mapping[str, transforms.NormStats],
    repack: transforms.Group,
    default_prompt: str | None,
    *,
    check_state: bool,
) -> transforms.Group:
    quantiles = data_config.use_quantile_norm
    return transforms.Group(
        inputs=(
            *repack.inputs,
            transforms.InjectDefaultPrompt(default_prompt),
            *data_config.data_transforms.inputs,
            *([checks.CheckState(norm_stats)] if check_state else []),
            transforms.Normalize(norm_stats, use_quantiles=quantiles),
            *data_config.model_transforms.inputs,
        ),
        outputs=(
            *data_config.model_transforms.outputs,
            transforms.Unnormalize(norm_stats, use_quantiles=quantiles),
            *data_config.data_transforms.outputs,
            *repack.outputs,
        ),
    )


def _load_jax(train_config: _config.TrainConfig, params_dir: pathlib.Path) -> _model.BaseModel:
    params = _model.restore_params(params_dir, dtype=jnp.bfloat16)
    try:
        return train_config.model.load(params, remove_extra_params=False)
    except ValueError as error:
        raise ValueError(
            f"{params_dir} does not fit config '{train_config.name}': {error}\n{fitting.describe(params)}"
        ) from error


def _load_pytorch(train_config: _config.TrainConfig, weights: pathlib.Path) -> Any:
    model = train_config.model.load_pytorch(train_config, weights)
    model.paligemma_with_expert.to_bfloat16_for_selected_params("bfloat16")
    return model


def _checkpoint_stats(
    directory: pathlib.Path, train_config: _config.TrainConfig, asset_id: str | None
) -> dict[str, transforms.NormStats]:
    """The checkpoint's statistics by the config's asset_id.

    A config that only names a data set may have been trained on another one (`openpi train --input-path`): then the
    only statistics that the checkpoint has are its own.
    """
    assets = directory / "assets"
    if asset_id is None:
        raise ValueError(
            f"Config '{train_config.name}' has no asset_id, so there is no telling which statistics of {assets} to "
            "use; set AssetsConfig(asset_id=...) or give norm_stats."
        )
    there = _checkpoints.stats_names(assets)
    if train_config.data.assets.asset_id is None and len(there) == 1:
        asset_id = there[0]
    return _checkpoints.load_norm_stats(assets, asset_id)


def _torch_device(wanted: str | None) -> str:
    import torch

    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def _random_model(model_config: _model.BaseModelConfig, seed: int) -> _model.BaseModel:
    """Compiled as a whole, and in half precision where the model computes in it, as a restored checkpoint would be:
    in a fraction of the time and memory of creating layer after layer."""
    graphdef, _ = nnx.split(nnx.eval_shape(model_config.create, jax.random.key(seed)))
    halve = getattr(model_config, "dtype", "float32") == "bfloat16"

    @functools.partial(jax.jit, compiler_options=_QUICK_COMPILE)
    def initial_state(rng: jax.Array) -> nnx.State:
        state = nnx.state(model_config.create(rng))
        return jax.tree.map(_as_bfloat16, state) if halve else state

    return nnx.merge(graphdef, initial_state(jax.random.key(seed)))


def _as_bfloat16(leaf: Any) -> Any:
    is_float = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.bfloat16) if is_float else leaf


def _identity_stats() -> dict[str, transforms.NormStats]:
    one = np.ones(_RANDOM_STATS_DIM)
    stats = transforms.NormStats(mean=0 * one, std=one, q01=-one, q99=one)
    return {"state": stats, "actions": stats}
