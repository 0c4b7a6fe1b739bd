"""One optimizer step as a pure function of state and batch."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from openpi.models import model as _model
from openpi.shared import array_typing as at
from openpi.training import config as _config
from openpi.training import utils

Batch = tuple[_model.Observation, _model.Actions]
# Parameters that `param_norm` leaves out: it follows the matrices that multiply activations.
_NOT_KERNELS = re.compile(r".*(bias|scale|pos_embedding|input_embedding).*")


def train_step(
    config: _config.TrainConfig, rng: jax.Array, state: utils.TrainState, batch: Batch
) -> tuple[utils.TrainState, dict[str, at.Array]]:
    """Move the trainable parameters by one step of the optimizer.

    Args:
        rng: the run's key; the step's own is `fold_in(rng, state.step)`.
        batch: observation and actions, [B, ...].

    Returns:
        The next state, and `loss`, `grad_norm` (before clipping), `param_norm` (of the kernels), `learning_rate`.
    """
    trainable, frozen = state.params.split(config.trainable_filter, ...)
    step_rng = jax.random.fold_in(rng, state.step)
    loss, grads = _loss_and_grads(config, state.model_def, trainable, frozen, step_rng, batch)
    updates, opt_state = state.tx.update(grads, state.opt_state, trainable)
    moved = optax.apply_updates(trainable, updates)
    params = nnx.merge_state(moved, frozen)
    new_state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
    if state.ema_decay is not None:
        new_state = new_state.replace(ema_params=_averaged(state.ema_params, params, state.ema_decay))
    info = {
        "loss": loss,
        "grad_norm": optax.global_norm(grads),
        "param_norm": optax.global_norm(kernels(params)),
        "learning_rate": config.lr_schedule.create()(state.step),
    }
    return new_state, info


def _loss_and_grads(
    config: _config.TrainConfig,
    model_def: nnx.GraphDef,
    trainable: nnx.State,
    frozen: nnx.State,
    rng: jax.Array,
    batch: Batch,
) -> tuple[jax.Array, nnx.State]:
    def loss(trainable: nnx.State, rng: jax.Array, part: Batch) -> jax.Array:
        model = nnx.merge(model_def, trainable, frozen)
        model.train()
        return jnp.mean(model.compute_loss(rng, *part, train=True))

    value_and_grad = jax.value_and_grad(loss)
    parts = config.loop.grad_accum_steps
    if parts == 1:
        return value_and_grad(trainable, rng, batch)

    def add(total: Any, numbered: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        number, part = numbered
        result = value_and_grad(trainable, jax.random.fold_in(rng, number), part)
        return jax.tree.map(lambda a, b: a + b / parts, total, result), None

    zeros = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), trainable))
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(parts), _split(batch, parts)))
    return total


def _split(batch: Batch, parts: int) -> Batch:
    """[B, ...] -> [parts, B / parts, ...]; every part takes samples from all devices."""
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)


def _averaged(average: Any, params: Any, decay: float) -> Any:
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)


def kernels(params: nnx.State) -> nnx.State:
    """The parameters with two axes or more that are no embedding, bias or scale."""

    def is_kernel(path: tuple[Any, ...], leaf: Any) -> bool:
        return not _NOT_KERNELS.fullmatch("/".join(map(str, path))) and leaf.ndim > 1

    return params.filter(nnx.All(nnx.Param, is_kernel))
