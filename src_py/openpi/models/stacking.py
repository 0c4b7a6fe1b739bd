"""Layers kept as one module whose parameters have a leading layer axis, run by `jax.lax.scan`.

One layer is compiled instead of eighteen, and the parameter tree is the one of published checkpoints.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from openpi.shared import array_typing as at

M = TypeVar("M", bound=nnx.Module)


def stack_layers(make_layer: Callable[[nnx.Rngs], M], depth: int, rngs: nnx.Rngs) -> M:
    """`depth` independently initialised layers as one module; every parameter gains a leading axis of that size."""

    def make(key: at.KeyArrayLike) -> M:
        return make_layer(nnx.Rngs(key))

    return nnx.vmap(make)(jax.random.split(rngs.params(), depth))


def scan_layers(
    layers: M, call: Callable[[M, Any, Any], tuple[Any, Any]], carry: Any, per_layer: Any = None, *, remat: bool
) -> tuple[Any, Any]:
    """Run `call(layer, carry, per_layer[i]) -> (carry, output)` through all layers.

    Args:
        layers: the stacked layers.
        call: applies one layer.
        carry: what goes from layer to layer.
        per_layer: a pytree whose leaves have a leading layer axis, or None.
        remat: for training: keep only each layer's input for the backward pass and compute the rest again. Without
            it, parameters are constants: they have no gradient.

    Returns:
        The last carry and the outputs, stacked along a leading layer axis.
    """
    graphdef, state = nnx.split(layers)
    if not remat:
        state = jax.tree.map(_hide_bfloat16, state)

    def body(carry: Any, inputs: tuple[nnx.State, Any]) -> tuple[Any, Any]:
        layer_state, extra = inputs
        return call(nnx.merge(graphdef, jax.tree.map(_show_bfloat16, layer_state)), carry, extra)

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, carry, (state, per_layer))


def _hide_bfloat16(x: jax.Array) -> jax.Array:
    """As integers, on CPU: there XLA turns the bfloat16 weights of all layers into float32 before the loop."""
    hide = x.dtype == jnp.bfloat16 and jax.default_backend() == "cpu"
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if hide else x


def _show_bfloat16(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x
