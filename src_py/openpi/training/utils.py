"""What a training run carries from step to step, and how to print it."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx, struct


class TrainState(struct.PyTreeNode):
    """Everything that a checkpoint needs so that training goes on exactly.

    Attributes:
        step: number of optimizer steps taken, int32 scalar.
        params: the weights that the optimizer moves.
        model_def: the model's graph, joined with params by `nnx.merge`.
        opt_state: the optimizer's state, for the trainable parameters only.
        tx: the optimizer.
        ema_decay: decay of the moving average of the weights a step, None for none.
        ema_params: that average, like params.
    """

    step: Any
    params: nnx.State
    model_def: nnx.GraphDef = struct.field(pytree_node=False)
    opt_state: optax.OptState
    tx: optax.GradientTransformation = struct.field(pytree_node=False)
    ema_decay: float | None = struct.field(pytree_node=False)
    ema_params: nnx.State | None = None


def tree_to_info(tree: Any, interp_func: Callable[[Any], str] = str) -> str:
    """One line a leaf: its path and `interp_func(leaf)`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return "\n".join(f"{jax.tree_util.keystr(path)}: {interp_func(leaf)}" for path, leaf in leaves)


def array_tree_to_info(tree: Any) -> str:
    """One line an array: its path, shape and dtype."""
    return tree_to_info(tree, lambda x: f"{x.shape}@{x.dtype}")
