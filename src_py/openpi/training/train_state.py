"""The state a run starts from: initialised, loaded weights put in, frozen ones in bfloat16, spread over the devices."""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, traverse_util

from openpi.shared import nnx_utils
from openpi.training import config as _config
from openpi.training import optimizer as _optimizer
from openpi.training import sharding as _sharding
from openpi.training import utils, weight_loaders

logger = logging.getLogger(__name__)

PureDict = dict[str, Any]


def matrices(params: Any) -> Any:
    """A weight-decay mask: True for leaves with two axes or more, False for biases and norm scales."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(config: _config.TrainConfig) -> optax.GradientTransformation:
    """The config's optimizer on its schedule."""
    mask = matrices if config.loop.decay_matrices_only else None
    return _optimizer.create_optimizer(config.optimizer, config.lr_schedule, weight_decay_mask=mask)


def load_weights(loader: weight_loaders.WeightLoader, params_shape: PureDict) -> PureDict:
    """What the loader has for a model of these parameters; the leaves that it has not are left out.

    Raises:
        ValueError: a loaded weight has another shape or dtype than the model's; names the first few.
    """
    loaded = traverse_util.flatten_dict(loader.load(params_shape), sep="/")
    expected = traverse_util.flatten_dict(params_shape, sep="/")
    loaded = {path: leaf for path, leaf in loaded.items() if not isinstance(leaf, jax.ShapeDtypeStruct)}
    wrong = [
        f"{path} is {_kind(leaf)}, the model's is {_kind(expected[path]) if path in expected else 'missing'}"
        for path, leaf in loaded.items()
        if path not in expected or _kind(leaf) != _kind(expected[path])
    ]
    if wrong:
        raise ValueError(
            f"The weights of {loader} do not fit the model: {'; '.join(wrong[:5])} ({len(wrong)} in all). Choose "
            f"weights of the same model variant."
        )
    return traverse_util.unflatten_dict(loaded, sep="/")


def _kind(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _new_state(
    config: _config.TrainConfig, tx: optax.GradientTransformation, rng: jax.Array, loaded: PureDict | None
) -> utils.TrainState:
    _, model_rng = jax.random.split(rng)
    model = config.model.create(model_rng)
    if loaded:
        graphdef, state = nnx.split(model)
        state.replace_by_pure_dict(loaded)
        model = nnx.merge(graphdef, state)
    params = nnx.state(model)
    params = nnx_utils.state_map(params, config.freeze_filter, lambda p: p.replace(p.value.astype(jnp.bfloat16)))
    return utils.TrainState(
        step=0,
        params=params,
        model_def=nnx.graphdef(model),
        tx=tx,
        opt_state=tx.init(params.filter(config.trainable_filter)),
        ema_decay=config.ema_decay,
        ema_params=None if config.ema_decay is None else params,
    )


def init_train_state(
    config: _config.TrainConfig, init_rng: jax.Array, mesh: jax.sharding.Mesh, *, resume: bool
) -> tuple[utils.TrainState, Any]:
    """The state to train from, and where each of its arrays lies.

    Frozen parameters are kept in bfloat16 and have no optimizer state.

    Args:
        resume: only the shapes are needed, since a checkpoint is going to be read: no weights are made or loaded.

    Returns:
        The state (of `jax.ShapeDtypeStruct`s if `resume`), and a tree of shardings like it.
    """
    tx = make_optimizer(config)

    def create(rng: jax.Array, loaded: PureDict | None = None) -> utils.TrainState:
        return _new_state(config, tx, rng, loaded)

    shape = jax.eval_shape(create, init_rng)
    state_sharding = _sharding.fsdp_sharding(shape, mesh, log=mesh.size > 1)
    if resume:
        return shape, state_sharding
    # The model's own dtypes: frozen parameters are cast only after loading.
    params_shape = nnx.state(nnx.eval_shape(config.model.create, jax.random.key(0))).to_pure_dict()
    loaded = load_weights(config.weight_loader, params_shape)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    make = jax.jit(create, donate_argnums=(1,), in_shardings=replicated, out_shardings=state_sharding)
    return make(init_rng, jax.tree.map(np.asarray, loaded)), state_sharding
